// Drawing: the form, jobs on their way, and what was drawn.
import { html, nothing } from "./vendor/lit-html/lit-html.js";
import * as api from "./api.js";
import { control, dataUrl, honoured, read } from "./fields.js";
import { settingsOf } from "./png.js";
import { shownPicture, shownRunning, thumbnails } from "./gallery.js";
import * as store from "./store.js";

/** Names of fields that have a place of their own in the form. */
const OWN = ["width", "height", "steps", "guidance", "seed", "negative_prompt", "strength", "strength_on_grid", "control_image"];
const FINAL = ["done", "failed", "cancelled"];
/** Prompts that are offered as examples. */
const EXAMPLES = 6;

/**
 * @param {any} state the page's state; `draw` is this part's
 * @param {() => void} update shows it
 * @param {(error: unknown) => void} failed tells of a failure
 */
export function drawing(state, update, failed) {
  const draw = (state.draw = {
    prompt: "", model: "", count: "1", locked: false, values: /** @type {Record<string, any>} */ ({}),
    start: /** @type {null | {file: Blob, url: string}} */ (null), over: false,
    jobs: /** @type {Map<string, any>} */ (new Map()), previews: /** @type {Map<string, {number: number, url: string}>} */ (new Map()),
    gallery: /** @type {(store.Entry & {url: string})[]} */ ([]), chosen: "", prompts: /** @type {Map<string, string>} */ (new Map()), said: "", saidAt: 0,
  });
  const taking = new Set();
  /** Jobs that are over: a reply that comes late tells of them as they were. */
  const over = new Set();

  /** Gives a picture's address back once nothing shows it any more. @param {string} url */
  const forget = (url) => setTimeout(() => URL.revokeObjectURL(url), 30_000);
  const models = () => state.capabilities.models.filter((/** @type {any} */ model) => model.tasks.image);
  const model = () => models().find((/** @type {any} */ model) => model.id === draw.model) ?? models()[0];
  const task = () => model().tasks[draw.start ? "edit" : "image"];

  async function load() {
    draw.gallery.forEach((entry) => forget(entry.url));
    draw.gallery = (await store.all()).map((entry) => ({ ...entry, url: URL.createObjectURL(entry.blob) }));
    update();
  }

  async function submit() {
    const fields = task().fields;
    if (!draw.prompt.trim()) return;
    if (!draw.locked) draw.values.seed = String(Math.floor(Math.random() * 2 ** 48));
    /** @type {Record<string, any>} */
    const request = { model: model().id, prompt: draw.prompt, n: Number(draw.count) || 1, partial_images: 3 };
    for (const [name, field] of honoured(fields)) {
      const value = read(field, draw.values[name] ?? "");
      const needed = field.needs;
      if (value !== undefined && (!needed || needed === "image" || draw.values[needed])) request[name] = value;
    }
    if (draw.start) request.images = [{ image_url: await dataUrl(draw.start.file) }];
    try {
      const kind = draw.start ? "edit" : "image";
      const job = await api.json("/brisk/v1/jobs", { kind, request });
      draw.prompts.set(job.id, draw.prompt);
      draw.chosen = "";
      take(job);
    } catch (error) {
      failed(error);
    }
    update();
  }

  /** Takes a snapshot of a job. @param {any} job */
  function take(job) {
    const before = draw.jobs.get(job.id);
    if ((job.kind !== "image" && job.kind !== "edit") || over.has(job.id) || (before && before.seq > job.seq)) return;
    if (FINAL.includes(job.status)) over.add(job.id);
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
      if (before?.url) forget(before.url);
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
      draw.chosen = "";
      await load();
    } catch (error) {
      failed(error);
    }
    const shown = draw.previews.get(job.id);
    if (shown?.url) forget(shown.url);
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
    if (draw.start) forget(draw.start.url);
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
    const side = model().size?.[name];
    return found?.honoured ? control(name, side ? { ...found, default: String(side) } : found, draw.values[name], (value) => set(name, value)) : nothing;
  };

  const form = () => html`<form class="panel" @submit=${(/** @type {Event} */ event) => { event.preventDefault(); void submit(); }}
      @keydown=${(/** @type {KeyboardEvent} */ event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); void submit(); }
      }}>
    <label for="prompt">What to draw
      <textarea id="prompt" maxlength="16000" .value=${draw.prompt} placeholder=${model().examples?.[0] ?? "a red heart"}
        @input=${(/** @type {any} */ event) => { draw.prompt = event.target.value; update(); }}></textarea></label>
    ${draw.prompt || !model().examples ? nothing : html`<div class="chips" role="group" aria-label="Examples">
      ${model().examples.slice(0, EXAMPLES).map((/** @type {string} */ text) => html`<button type="button"
        @click=${() => { draw.prompt = text; update(); }}>${text}</button>`)}</div>`}
    <button class="main wide" type="submit" ?disabled=${!draw.prompt.trim()}>${draw.start ? "Redraw" : "Draw"}${Number(draw.count) > 1 ? ` ${draw.count} pictures` : ""}</button>
    <p class="hint keys">Ctrl+Enter draws, Esc stops</p>
    <div class="fields">
      <div class="wide">${field("negative_prompt")}</div>
      <label for="model">Model
        <select id="model" @change=${(/** @type {any} */ event) => { draw.model = event.target.value; update(); }}>
          ${models().map((/** @type {any} */ each) => html`<option value=${each.id} ?selected=${each === model()}>${each.id}</option>`)}
        </select></label>
      <label for="count">Pictures
        <input id="count" type="number" min="1" max=${state.capabilities.limits.results} .value=${draw.count}
          @input=${(/** @type {any} */ event) => { draw.count = event.target.value; update(); }}></label>
      ${field("width")}${field("height")}${field("steps")}${field("guidance")}
      <div class="inputs wide">${field("seed")}
        <button type="button" aria-label="Draw another seed" title="Draw another seed"
          @click=${() => { set("seed", String(Math.floor(Math.random() * 2 ** 48))); draw.locked = false; update(); }}>⚄</button>
        <button type="button" aria-pressed=${draw.locked} title="Keep this seed"
          @click=${() => { draw.locked = !draw.locked; update(); }}>${draw.locked ? "Kept" : "Keep"}</button></div>
    </div>
    ${draw.start
      ? html`<div class="start"><img src=${draw.start.url} alt="The picture to start from">
          <button type="button" @click=${() => start(null)}>Start from nothing</button></div>
          <div class="fields">${field("strength")}${field("strength_on_grid")}</div>`
      : html`<div class="drop ${draw.over ? "over" : ""}"><label for="file">Start from a picture: drop it here, or choose one. One of brisk's restores its settings.
          <input id="file" type="file" accept="image/png,image/jpeg,image/webp"
            @change=${(/** @type {any} */ event) => { void drop(event.target.files[0]); event.target.value = ""; }}></label></div>`}
    <details><summary>Further options</summary><div class="fields">
      ${honoured(task().fields).filter(([name]) => !OWN.includes(name)).map(([name]) => field(name))}</div>
    </details>
  </form>`;

  /** @param {any} job */
  const shownJob = (job) => html`<li><div>
      ${job.error ? html`<div class="problem">${job.error.message}</div>` : html`${draw.prompts.get(job.id) ?? "A picture"}
        <div class="hint">${job.position ? `${job.position} before it` : "next"}</div>`}</div>
    ${job.error ? html`<button @click=${() => { draw.jobs.delete(job.id); update(); }}>Dismiss</button>`
      : html`<button @click=${() => cancel(job)}>Stop</button>`}</li>`;

  /** @param {store.Entry & {url: string}} entry */
  const acts = (entry) => [
    { title: "Use these settings", act: () => use(entry.settings) },
    { title: "New seed", act: () => { use(entry.settings); draw.locked = false; void submit(); } },
    { title: "Start from this", act: () => start(entry.blob) },
    { title: "Download", act: () => download(entry) },
    { title: "Delete", act: async () => { await store.drop(entry.id); await load(); } },
  ];

  /** @param {store.Entry & {url: string}} entry */
  function download(entry) {
    const link = document.createElement("a");
    link.href = entry.url;
    link.download = `brisk-${entry.settings.seed ?? entry.id}.png`;
    link.click();
  }

  const results = () => {
    const jobs = [...draw.jobs.values()].filter((job) => job.status !== "done");
    const running = jobs.find((job) => job.status === "running" || job.status === "loading");
    const chosen = draw.gallery.find((entry) => entry.id === draw.chosen) ?? draw.gallery[0];
    const hero = running && !draw.chosen
      ? shownRunning(running, draw.previews.get(running.id)?.url, draw.prompts.get(running.id), () => cancel(running))
      : chosen ? shownPicture(chosen, acts(chosen))
        : html`<div class="panel"><div class="frame"><p>Say what to draw, and it appears here.<br>Pictures stay in this browser; the server keeps none.</p></div></div>`;
    return html`<section class="column" aria-label="Pictures">
      <div class="visually-hidden" role="status">${draw.said}</div>
      ${hero}
      ${jobs.some((job) => job !== running || draw.chosen) ? html`<ul class="jobs">${jobs.filter((job) => job !== running || draw.chosen).map(shownJob)}</ul>` : nothing}
      ${draw.gallery.length > 0 ? thumbnails(draw.gallery, running && !draw.chosen ? null : chosen, (entry) => { draw.chosen = entry.id; update(); }) : nothing}
    </section>`;
  };

  const view = () => (models().length === 0
    ? html`<main><p class="hint">No model here draws.</p></main>`
    : html`<main class="split"
        @dragover=${(/** @type {DragEvent} */ event) => { event.preventDefault(); if (!draw.over) { draw.over = true; update(); } }}
        @dragleave=${() => { draw.over = false; update(); }}
        @drop=${(/** @type {DragEvent} */ event) => {
          event.preventDefault();
          draw.over = false;
          void drop(event.dataTransfer?.files[0]);
          update();
        }}>
      <section class="side" aria-label="What to draw">${form()}</section>
      ${results()}</main>`);

  const stop = () => [...draw.jobs.values()].filter((job) => !FINAL.includes(job.status)).forEach((job) => void cancel(job));
  return { view, take, load, stop };
}
