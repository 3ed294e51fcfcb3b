// Pictures that were drawn, in this browser: the server keeps none.

const MOST = 500 * 1024 * 1024;

/** @typedef {{id: string, when: number, blob: Blob, settings: Record<string, any>}} Entry */

/** @returns {Promise<IDBDatabase>} */
function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open("brisk", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("pictures", { keyPath: "id" }).createIndex("when", "when");
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/**
 * @template T
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => IDBRequest<T> | void} work
 * @returns {Promise<T>}
 */
async function within(mode, work) {
  const database = await open();
  return new Promise((resolve, reject) => {
    const transaction = database.transaction("pictures", mode);
    const request = work(transaction.objectStore("pictures"));
    transaction.oncomplete = () => {
      database.close();
      resolve(/** @type {T} */ (request ? request.result : undefined));
    };
    transaction.onabort = transaction.onerror = () => {
      database.close();
      reject(transaction.error);
    };
  });
}

/** @returns {Promise<Entry[]>} the newest first */
export async function all() {
  const entries = await within("readonly", (store) => store.index("when").getAll());
  return entries.reverse();
}

/** Keeps a picture; the oldest make room. @param {Entry} entry */
export async function keep(entry) {
  await within("readwrite", (store) => void store.put(entry));
  const entries = await all();
  let bytes = 0;
  for (const { id, blob } of entries) {
    bytes += blob.size;
    if (bytes > MOST) await drop(id);
  }
}

/** @param {string} id */
export const drop = (id) => within("readwrite", (store) => void store.delete(id));
