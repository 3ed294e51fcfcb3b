// What was drawn, and what is being drawn: one large, the others small.
import { html, nothing } from "./vendor/lit-html/lit-html.js";

/** @typedef {import("./store.js").Entry & {url: string}} Shown */

/** Settings that are told of a picture, and their names. @type {[string, string][]} */
const TOLD = [["model", "Model"], ["seed", "Seed"], ["steps", "Steps"], ["guidance", "Guidance"], ["scheduler", "Scheduler"],
  ["negative_prompt", "Not"], ["strength", "Strength"]];

/** @param {Record<string, any>} settings */
const told = (settings) => html`<dl>
  ${TOLD.filter(([name]) => settings[name] !== undefined && settings[name] !== "").map(([name, title]) =>
    html`<dt>${title}</dt><dd>${settings[name]}</dd>`)}
  ${settings.width ? html`<dt>Size</dt><dd>${settings.width} × ${settings.height}</dd>` : nothing}</dl>`;

/**
 * A picture with its settings and what can be done with it.
 * @param {Shown} entry @param {{title: string, act: () => void}[]} acts
 */
export const shownPicture = ({ url, settings }, acts) => html`<div class="panel stage">
  <div class="frame"><img src=${url} alt=${settings.prompt ?? "A picture"}></div>
  <div><p class="said-of">${settings.prompt ?? "A picture"}</p>
    ${told(settings)}
    <div class="actions">${acts.map(({ title, act }) => html`<button @click=${act}>${title}</button>`)}</div></div></div>`;

/**
 * A job that runs, as far as it is.
 * @param {any} job @param {string | undefined} url its newest preview @param {string | undefined} prompt
 * @param {() => void} stop
 */
export const shownRunning = (job, url, prompt, stop) => html`<div class="panel stage">
  <div class="frame drawing">${url ? html`<img src=${url} alt="Preview">` : html`<p>${job.stage ?? job.status}</p>`}</div>
  <div><p class="said-of">${prompt ?? "A picture"}</p>
    <dl><dt>Stage</dt><dd>${job.stage ?? job.status}</dd>
      ${job.total ? html`<dt>Step</dt><dd>${job.step} of ${job.total}</dd>` : nothing}
      ${job.results > 1 ? html`<dt>Picture</dt><dd>${job.result + 1} of ${job.results}</dd>` : nothing}
      ${job.eta_seconds ? html`<dt>Left</dt><dd>about ${Math.ceil(job.eta_seconds)} s</dd>` : nothing}
      <dt>Seed</dt><dd>${job.seed}</dd></dl>
    <progress aria-label="How far it is" max=${job.total || 1} .value=${job.step}></progress>
    ${job.warnings.map((/** @type {string} */ warning) => html`<div class="warning">${warning}</div>`)}
    <div class="actions"><button @click=${stop}>Stop</button></div></div></div>`;

/**
 * All pictures, small.
 * @param {Shown[]} entries @param {Shown | null} chosen @param {(entry: Shown) => void} choose
 */
export const thumbnails = (entries, chosen, choose) => html`
  <div class="heading"><h2>Drawn in this browser</h2><span class="hint">${entries.length}</span></div>
  <ul class="gallery">${entries.map((entry) => html`<li><button aria-pressed=${entry.id === chosen?.id}
    title=${entry.settings.prompt ?? "A picture"} @click=${() => choose(entry)}><img src=${entry.url} loading="lazy"
    alt=${`${entry.settings.prompt ?? "A picture"}, seed ${entry.settings.seed ?? "unknown"}`}></button></li>`)}</ul>`;
