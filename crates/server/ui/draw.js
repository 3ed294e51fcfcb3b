// Drawing: the form, jobs on their way, and what was drawn.
import { html, nothing } from "./vendor/lit-html/lit-html.js";
import * as api from "./api.js";
import { control, dataUrl, honoured, read } from "./fields.js";
import { settingsOf } from "./png.js";
import * as store from "./store.js";

/** Names of fields that have a place of their own in the form. */
const OWN = ["width", "height", "steps", "guidance", "seed", "negative_prompt", "strength", "strength_on_grid", "control_image"];
const FINAL = ["done", "failed", "cancelled"];

/**
 * @param {any} state the page's state; `draw` is this part's
 * @param {() => void} update shows it
 * @param {(error: unknown) => void} failed tells of a failure
 */
export function drawing(state, update, failed) {
  const draw = (state.draw = {
    prompt: "", model: "", n: 1, locked: false, values: /** @type {Record<string, any>} */ ({}),
    start: /** @type {null | {file: Blob, url: string}} */ (null), over: false,
    jobs: /** @type {Map<string, any>} */ (new Map()), previews: /** @type {Map<string, {number: number, url: string}>} */ (new Map()),
    gallery: /** @type {(store.Entry & {url: string})[]} */ ([]), said: "", saidAt: 0,
  });
  const taking = new Set();

  const models = () => state.capabilities.models.filter((/** @type {any} */ model) => model.tasks.image);
  const model = () => models().find((/** @type {any} */ model) => model.id === draw.model) ?? models()[0];
  const task = () => model().tasks[draw.start ? "edit" : "image"];

  async function load() {
    for (const entry of draw.gallery) URL.revokeObjectURL(entry.url);
    draw.gallery = (await store.all()).map((entry) => ({ ...entry, url: URL.createObjectURL(entry.blob) }));
    update();
  }

  async function submit() {
    const fields = task().fields;
    if (!draw.prompt.trim()) return;
    if (!draw.locked) draw.values.seed = String(Math.floor(Math.random() * 2 ** 48));
    /** @type {Record<string, any>} */
    const request = { model: model().id, prompt: draw.prompt, n: draw.n, partial_images: 3 };
    for (const [name, field] of honoured(fields)) {
      const value = read(field, draw.values[name] ?? "");
      const needed = field.needs;
      if (value !== undefined && (!needed || needed === "image" || draw.values[needed])) request[name] = value;
    }
    if (draw.start) request.images = [{ image_url: await dataUrl(draw.start.file) }];
    try {
      const kind = draw.start ? "edit" : "image";
      take(await api.json("/brisk/v1/jobs", { kind, request }));
    } catch (error) {
      failed(error);
    }
    update();
  }

  /** Takes a snapshot of a job. @param {any} job */
  function take(job) {
    const before = draw.jobs.get(job.id);
    if ((job.kind !== "image" && job.kind !== "edit") || (before && before.seq > job.seq)) return;
    draw.jobs.set(job.id, job);
    if (job.preview > (draw.previews.get(job.id)?.number ?? 0)) void preview(job);
    if (job.status === "done") void finish(job);
    else if (FINAL.includes(job.status) && job.status !== "failed") draw.jobs.delete(job.id);
    say(job);
    update();
  }

  /** Tells listeners how far it is, every five seconds at most. @param {any} job */
  function say(job) {
    const ended = FINAL.includes(job.status);
    if (!ended && Date.now() - draw.saidAt < 5000) return;
    draw.saidAt = Date.now();
    draw.said = ended ? `picture ${job.status}` : `${job.stage ?? job.status}, step ${job.step} of ${job.total}`;
  }

  /** @param {any} job */
  async function preview(job) {
    const number = job.preview;
    draw.previews.set(job.id, { url: draw.previews.get(job.id)?.url ?? "", number });
    try {
      const url = URL.createObjectURL(await api.blob(job.links.preview));
      const before = draw.previews.get(job.id);
      if (before?.url) URL.revokeObjectURL(before.url);
      draw.previews.set(job.id, { url, number });
      update();
    } catch {
      // The job ended meanwhile: its picture follows.
    }
  }

  /** Fetches what a job drew, once. @param {any} job */
  async function finish(job) {
    if (taking.has(job.id)) return;
    taking.add(job.id);
    try {
      const known = new Set((await store.all()).map((entry) => entry.id));
      for (let index = 0; index < job.results; index++) {
        const id = `${job.id}-${index}`;
        if (known.has(id)) continue;
        const blob = await api.blob(`${job.links.result}/${index}`);
        const settings = (await settingsOf(blob)) ?? { model: job.model, seed: job.seed + index };
        await store.keep({ id, blob, settings, when: Date.now() + index });
      }
      await load();
    } catch (error) {
      failed(error);
    }
    const shown = draw.previews.get(job.id);
    if (shown?.url) URL.revokeObjectURL(shown.url);
    draw.previews.delete(job.id);
    draw.jobs.delete(job.id);
    update();
  }

  /** @param {any} job */
  async function cancel(job) {
    try {
      take(await api.json(job.links.cancel, {}));
    } catch (error) {
      failed(error);
    }
  }

  /** The settings of a picture into the form. @param {Record<string, any>} settings */
  function use(settings) {
    draw.prompt = settings.prompt ?? draw.prompt;
    const named = models().find((/** @type {any} */ model) => model.id === settings.model || model.aliases.includes(settings.model));
    if (named) draw.model = named.id;
    draw.values = {};
    for (const [name] of honoured(model().tasks.edit?.fields ?? task().fields)) {
      if (settings[name] !== undefined && settings[name] !== null) draw.values[name] = settings[name];
    }
    draw.locked = true;
    update();
  }

  /** A file as settings or as the picture to start from. @param {File | undefined} file */
  async function drop(file) {
    if (!file) return;
    const settings = await settingsOf(file);
    if (settings?.prompt) use(settings);
    else start(file);
  }

  /** @param {Blob | null} file */
  function start(file) {
    if (draw.start) URL.revokeObjectURL(draw.start.url);
    draw.start = file ? { file, url: URL.createObjectURL(file) } : null;
    update();
  }

  /** @param {string} name @param {any} value */
  const set = (name, value) => {
    draw.values[name] = value;
    if (name === "seed") draw.locked = value !== "";
    update();
  };

  /** A control of the form, where the model honours the field. @param {string} name */
  const field = (name) => {
    const found = task().fields[name];
    return found?.honoured ? control(name, found, draw.values[name], (value) => set(name, value)) : nothing;
  };

  const form = () => html`<form class="panel" @submit=${(/** @type {Event} */ event) => { event.preventDefault(); void submit(); }}
      @keydown=${(/** @type {KeyboardEvent} */ event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); void submit(); }
      }}>
    <label for="prompt">What to draw
      <textarea id="prompt" maxlength="16000" .value=${draw.prompt} placeholder=${model().examples?.[0] ?? ""}
        @input=${(/** @type {any} */ event) => { draw.prompt = event.target.value; update(); }}></textarea></label>
    ${field("negative_prompt")}
    <label for="model">Model
      <select id="model" @change=${(/** @type {any} */ event) => { draw.model = event.target.value; update(); }}>
        ${models().map((/** @type {any} */ each) => html`<option value=${each.id} ?selected=${each === model()}>${each.id}</option>`)}
      </select></label>
    <div class="row">${field("width")}${field("height")}</div>
    <div class="row">${field("steps")}${field("guidance")}</div>
    <div class="row">${field("seed")}
      <button type="button" aria-label="Draw another seed" title="Draw another seed"
        @click=${() => { set("seed", String(Math.floor(Math.random() * 2 ** 48))); draw.locked = false; update(); }}>⚄</button>
      <button type="button" aria-pressed=${draw.locked} title="Keep this seed"
        @click=${() => { draw.locked = !draw.locked; update(); }}>${draw.locked ? "Kept" : "Keep"}</button></div>
    <label for="count">Pictures
      <input id="count" type="number" min="1" max=${state.capabilities.limits.results} .value=${String(draw.n)}
        @input=${(/** @type {any} */ event) => { draw.n = Number(event.target.value) || 1; }}></label>
    ${draw.start
      ? html`<div class="start"><img src=${draw.start.url} alt="The picture to start from">
          <button type="button" @click=${() => start(null)}>Start from nothing</button></div>
          ${field("strength")}${field("strength_on_grid")}`
      : html`<div class="drop ${draw.over ? "over" : ""}"><label for="file">Drop a picture here, or choose one: one of brisk's restores its settings
          <input id="file" type="file" accept="image/png,image/jpeg,image/webp"
            @change=${(/** @type {any} */ event) => { void drop(event.target.files[0]); event.target.value = ""; }}></label></div>`}
    <details><summary>Further options</summary>
      ${honoured(task().fields).filter(([name]) => !OWN.includes(name)).map(([name]) => field(name))}
    </details>
    <div class="actions"><button class="main" type="submit" ?disabled=${!draw.prompt.trim()}>Draw</button>
      <span class="hint">Ctrl+Enter draws, Esc stops</span></div>
  </form>`;

  /** @param {any} job */
  const shownJob = (job) => html`<li>
    ${draw.previews.get(job.id)?.url ? html`<img src=${draw.previews.get(job.id)?.url} alt="Preview">` : html`<span></span>`}
    <div>
      <div>${job.status === "queued" ? `waiting, ${job.position ?? 0} before it` : (job.stage ?? job.status)}
        ${job.results > 1 ? `, picture ${job.result + 1} of ${job.results}` : ""}
        ${job.total ? `, step ${job.step} of ${job.total}` : ""}
        ${job.eta_seconds ? `, about ${Math.ceil(job.eta_seconds)} s` : ""}</div>
      ${job.error ? html`<div class="problem">${job.error.message}</div>`
        : html`<progress aria-label="How far it is" max=${job.total || 1} .value=${job.step}></progress>`}
      ${job.warnings.map((/** @type {string} */ warning) => html`<div class="warning">${warning}</div>`)}
    </div>
    ${job.error ? html`<button @click=${() => { draw.jobs.delete(job.id); update(); }}>Dismiss</button>`
      : html`<button @click=${() => cancel(job)}>Stop</button>`}</li>`;

  /** @param {store.Entry & {url: string}} entry */
  const shownEntry = (entry) => html`<li>
    <img src=${entry.url} alt=${entry.settings.prompt ?? "A picture"} loading="lazy">
    <p>${entry.settings.prompt ?? ""}</p>
    <p class="hint">${entry.settings.model ?? ""}, seed ${entry.settings.seed ?? "unknown"}${entry.settings.steps ? `, ${entry.settings.steps} steps` : ""}</p>
    <div class="actions">
      <button @click=${() => use(entry.settings)}>Use these settings</button>
      <button @click=${() => { use(entry.settings); draw.locked = false; void submit(); }}>New seed</button>
      <button @click=${() => start(entry.blob)}>Start from this</button>
      <button @click=${() => download(entry)}>Download</button>
      <button @click=${async () => { await store.drop(entry.id); await load(); }}>Delete</button>
    </div></li>`;

  /** @param {store.Entry & {url: string}} entry */
  function download(entry) {
    const link = document.createElement("a");
    link.href = entry.url;
    link.download = `brisk-${entry.settings.seed ?? entry.id}.png`;
    link.click();
  }

  const view = () => (models().length === 0
    ? html`<main><p class="empty">No model here draws.</p></main>`
    : html`<main class="split"
        @dragover=${(/** @type {DragEvent} */ event) => { event.preventDefault(); if (!draw.over) { draw.over = true; update(); } }}
        @dragleave=${() => { draw.over = false; update(); }}
        @drop=${(/** @type {DragEvent} */ event) => {
          event.preventDefault();
          draw.over = false;
          void drop(event.dataTransfer?.files[0]);
          update();
        }}>
      <section aria-label="What to draw">${form()}</section>
      <section aria-label="Pictures">
        <div class="visually-hidden" role="status">${draw.said}</div>
        <ul class="jobs">${[...draw.jobs.values()].filter((job) => job.status !== "done").map(shownJob)}</ul>
        ${draw.gallery.length === 0 ? html`<p class="empty">Pictures that you draw are kept here, in this browser.</p>` : nothing}
        <ul class="gallery">${draw.gallery.map(shownEntry)}</ul>
      </section></main>`);

  const stop = () => [...draw.jobs.values()].filter((job) => !FINAL.includes(job.status)).forEach((job) => void cancel(job));
  return { view, take, load, stop };
}
