// Texts: a conversation, and the answer while it fills.
import { html, nothing } from "./vendor/lit-html/lit-html.js";
import * as api from "./api.js";
import { control, honoured, read } from "./fields.js";

/** Undecided tokens that are shown one by one. */
const SHOWN = 240;
/** Questions that are offered as examples. */
const EXAMPLES = 3;
/** Fields that stand in front. */
const FIRST = ["cache", "threshold", "temperature", "seed"];

/**
 * @param {any} state @param {() => void} update @param {(error: unknown) => void} failed
 */
export function chatting(state, update, failed) {
  const chat = (state.chat = {
    text: "", model: "", most: "", values: /** @type {Record<string, any>} */ ({}),
    turns: /** @type {any[]} */ ([]), abort: /** @type {AbortController | null} */ (null),
  });
  const models = () => state.capabilities.models.filter((/** @type {any} */ model) => model.tasks.text);
  const model = () => models().find((/** @type {any} */ model) => model.id === chat.model) ?? models()[0];

  async function send() {
    const text = chat.text.trim();
    if (!text || chat.abort) return;
    chat.turns.push({ role: "user", content: text });
    const messages = chat.turns.filter((turn) => !turn.problem).map(({ role, content }) => ({ role, content }));
    /** @type {any} */
    const answer = { role: "assistant", content: "", canvas: null, told: null, warnings: [], problem: false };
    chat.turns.push(answer);
    chat.text = "";
    chat.abort = new AbortController();
    update();
    /** @type {Record<string, any>} */
    const body = { model: model().id, messages, stream: true, canvas: true };
    if (chat.most) body.max_tokens = Number(chat.most);
    for (const [name, field] of honoured(model().tasks.text.fields)) {
      const value = read(field, chat.values[name] ?? "");
      if (value !== undefined) body[name] = value;
    }
    try {
      await api.stream("/v1/chat/completions", { body, signal: chat.abort.signal }, (name, data) => take(answer, name, data));
    } catch (error) {
      if (!chat.abort.signal.aborted) failed(error);
      answer.problem ||= answer.content === "";
    }
    answer.canvas = null;
    chat.abort = null;
    if (answer.problem) chat.turns = chat.turns.filter((turn) => turn !== answer);
    update();
  }

  /** @param {any} answer @param {string | undefined} name @param {string} data */
  function take(answer, name, data) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (name === "error") throw new api.Failure(500, chunk.error);
    const choice = chunk.choices?.[0];
    answer.content += choice?.delta?.content ?? "";
    if (chunk.brisk?.canvas) answer.canvas = chunk.brisk.canvas;
    if (chunk.brisk?.forward_passes) {
      answer.told = chunk.brisk;
      answer.warnings = chunk.brisk.warnings;
    }
    update();
  }

  /** @param {any} turn */
  const shown = (turn) => (turn.canvas
    ? turn.canvas.map((/** @type {string | number} */ piece) =>
        typeof piece === "number" ? html`<span class="open" aria-hidden="true">${"░".repeat(Math.min(piece, SHOWN))}</span>` : piece)
    : turn.content);

  /** @param {any} told */
  const numbers = (told) => {
    const tokens = told.tokens_per_pass * told.forward_passes;
    return `${told.forward_passes} passes, ${told.tokens_per_pass.toFixed(2)} tokens a pass, ${(tokens / told.seconds).toFixed(1)} tokens a second, seed ${told.seed}`;
  };

  /** @param {any} turn */
  const shownTurn = (turn) => html`<div class="turn ${turn.role}"><span class="visually-hidden">${turn.role === "user" ? "You" : "Answer"}: </span><div class="said">${shown(turn)}</div>
    ${turn.told ? html`<div class="hint">${numbers(turn.told)}</div>` : nothing}
    ${(turn.warnings ?? []).map((/** @type {string} */ warning) => html`<div class="warning">${warning}</div>`)}</div>`;

  /** @param {[string, any]} entry */
  const field = ([name, found]) => control(name, found, chat.values[name], (value) => { chat.values[name] = value; update(); });

  /** @param {string} text */
  const ask = (text) => { chat.text = text; void send(); };

  const welcome = () => html`<div class="welcome"><p>Ask something; the answer fills in from everywhere at once.</p>
    <div class="chips">${(model().examples ?? []).slice(0, EXAMPLES).map((/** @type {string} */ text) =>
      html`<button type="button" @click=${() => ask(text)}>${text}</button>`)}</div></div>`;

  const composer = () => html`<form class="panel composer" @submit=${(/** @type {Event} */ event) => { event.preventDefault(); void send(); }}
      @keydown=${(/** @type {KeyboardEvent} */ event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); void send(); }
      }}>
    <label for="message">Message
      <textarea id="message" .value=${chat.text} placeholder="Write a message"
        @input=${(/** @type {any} */ event) => { chat.text = event.target.value; update(); }}></textarea></label>
    <div class="actions">
      <button class="main" type="submit" ?disabled=${!chat.text.trim() || chat.abort !== null}>Send</button>
      ${chat.abort ? html`<button type="button" @click=${stop}>Stop</button>` : nothing}
      <span class="hint">Ctrl+Enter sends, Esc stops</span></div></form>`;

  const view = () => {
    if (models().length === 0) return html`<main><p class="hint">No model here writes.</p></main>`;
    const fields = honoured(model().tasks.text.fields);
    const first = fields.filter(([name]) => FIRST.includes(name));
    return html`<main class="split talks">
      <section class="panel side" aria-label="Options">
        <div class="fields">
          <label class="wide" for="writer">Model
            <select id="writer" @change=${(/** @type {any} */ event) => { chat.model = event.target.value; update(); }}>
              ${models().map((/** @type {any} */ each) => html`<option value=${each.id} ?selected=${each === model()}>${each.id}</option>`)}
            </select></label>
          <label class="wide" for="most">Most tokens
            <input id="most" type="number" min="1" max=${state.capabilities.limits.tokens} .value=${chat.most} placeholder="usually 256"
              @input=${(/** @type {any} */ event) => { chat.most = event.target.value; }}></label>
          ${first.map(field)}</div>
        <details><summary>Further options</summary><div class="fields">${fields.filter(([name]) => !FIRST.includes(name)).map(field)}</div></details>
        <div class="actions"><button @click=${() => { chat.turns = []; update(); }} ?disabled=${chat.turns.length === 0}>New conversation</button></div>
      </section>
      <section class="talk" aria-label="Conversation">
        ${chat.turns.length === 0 ? welcome() : html`<div class="turns">${chat.turns.map(shownTurn)}</div>`}
        ${composer()}</section></main>`;
  };

  const stop = () => chat.abort?.abort();
  return { view, stop };
}
