// The page: one state, one view of it.
import { html, nothing, render } from "./vendor/lit-html/lit-html.js";
import * as api from "./api.js";
import { chatting } from "./chat.js";
import { drawing } from "./draw.js";

/** @type {any} */
const state = { tab: "draw", capabilities: null, problem: "", needsKey: false, lost: false };
const place = /** @type {HTMLElement} */ (document.getElementById("app"));

let due = false;
/** Shows the state, once for all changes of a frame. */
function update() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    render(view(), place);
    const dialog = /** @type {HTMLDialogElement | null} */ (document.querySelector("dialog"));
    if (dialog && !dialog.open) dialog.showModal();
  });
}

/** @param {unknown} error */
function failed(error) {
  if (error instanceof api.Failure && error.status === 401) state.needsKey = true;
  else state.problem = error instanceof api.Failure ? error.message : "The server cannot be reached.";
  update();
}

const draw = drawing(state, update, failed);
const chat = chatting(state, update, failed);

/** Follows jobs; a server that went away is asked again. */
async function follow() {
  for (let wait = 500; ; wait = Math.min(wait * 2, 10000)) {
    try {
      await api.stream("/brisk/v1/events", {}, (_, data) => draw.take(JSON.parse(data)), () => {
        wait = 500;
        state.lost = false;
        update();
      });
    } catch (error) {
      if (error instanceof api.Failure && error.status === 401) return failed(error);
      state.lost = true;
      update();
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

async function begin() {
  try {
    state.capabilities = await api.json("/brisk/v1/capabilities");
    state.needsKey = false;
    await draw.load();
    void follow();
  } catch (error) {
    failed(error);
  }
  update();
}

/** @param {string} name @param {string} title */
const tab = (name, title) => html`<button role="tab" id="tab-${name}" aria-selected=${state.tab === name}
  @click=${() => { state.tab = name; update(); }}>${title}</button>`;

const keyDialog = () => html`<dialog aria-labelledby="key-title" @cancel=${(/** @type {Event} */ event) => event.preventDefault()}>
  <form method="dialog" @submit=${(/** @type {any} */ event) => {
    event.preventDefault();
    api.setKey(event.target.elements.key.value.trim());
    state.needsKey = false;
    void begin();
  }}>
    <h2 id="key-title">This server asks for a key</h2>
    <label for="key">API key<input id="key" name="key" type="password" autocomplete="off" required></label>
    <div class="actions"><button class="main">Go on</button></div>
  </form></dialog>`;

const view = () => html`
  <header><h1><img src="/ui/icon.svg" alt="">brisk</h1><nav role="tablist" aria-label="What to make">${tab("draw", "Draw")}${tab("text", "Text")}</nav>
    ${state.lost ? html`<span class="warning" role="status">The server is away; trying again.</span>` : nothing}
    ${state.capabilities ? html`<span class="about">version ${state.capabilities.version}</span>` : nothing}</header>
  ${state.problem ? html`<div class="panel problem banner" role="alert"><span>${state.problem}</span>
    <button @click=${() => { state.problem = ""; update(); }}>Dismiss</button></div>` : nothing}
  ${state.needsKey ? keyDialog() : nothing}
  ${state.capabilities ? (state.tab === "draw" ? draw.view() : chat.view()) : html`<main><p class="hint">Loading…</p></main>`}`;

addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  draw.stop();
  chat.stop();
});
update();
void begin();
