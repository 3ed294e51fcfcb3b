// The text that a PNG of brisk's carries: the request that drew it.

const KEYWORD = "brisk";

/**
 * @param {Blob} file
 * @returns {Promise<Record<string, any> | null>} null for other files
 */
export async function settingsOf(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const view = new DataView(bytes.buffer);
  const signature = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
  if (signature.some((byte, index) => bytes[index] !== byte)) return null;
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const data = bytes.subarray(at + 8, at + 8 + length);
    const text = kind === "tEXt" || kind === "iTXt" ? textOf(kind, data) : null;
    if (text !== null) {
      try {
        const found = JSON.parse(text);
        return found && typeof found === "object" ? found : null;
      } catch {
        return null;
      }
    }
    at += 12 + length;
  }
  return null;
}

/** @param {string} kind @param {Uint8Array} data @returns {string | null} */
function textOf(kind, data) {
  const end = data.indexOf(0);
  if (end < 0 || new TextDecoder("latin1").decode(data.subarray(0, end)) !== KEYWORD) return null;
  if (kind === "tEXt") return new TextDecoder("latin1").decode(data.subarray(end + 1));
  // Compressed texts are none that brisk writes; language and translated keyword end with zeros.
  if (data[end + 1] !== 0) return null;
  const language = data.indexOf(0, end + 3);
  const translated = data.indexOf(0, language + 1);
  return language < 0 || translated < 0 ? null : new TextDecoder().decode(data.subarray(translated + 1));
}
