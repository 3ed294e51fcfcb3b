// Texts: a conversation, and the answer while it fills.
import { html, nothing } from "./vendor/lit-html/lit-html.js";
import * as api from "./api.js";
import { control, honoured, read } from "./fields.js";

/** Undecided tokens that are shown one by one. */
const SHOWN = 240;
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

  const view = () => {
    if (models().length === 0) return html`<main><p class="empty">No model here writes.</p></main>`;
    const fields = honoured(model().tasks.text.fields);
    const first = fields.filter(([name]) => FIRST.includes(name));
    return html`<main class="split">
      <section class="panel" aria-label="Options">
        <label for="writer">Model
          <select id="writer" @change=${(/** @type {any} */ event) => { chat.model = event.target.value; update(); }}>
            ${models().map((/** @type {any} */ each) => html`<option value=${each.id} ?selected=${each === model()}>${each.id}</option>`)}
          </select></label>
        <label for="most">Most tokens
          <input id="most" type="number" min="1" max=${state.capabilities.limits.tokens} .value=${chat.most}
            @input=${(/** @type {any} */ event) => { chat.most = event.target.value; }}></label>
        ${first.map(field)}
        <details><summary>Further options</summary>${fields.filter(([name]) => !FIRST.includes(name)).map(field)}</details>
        <div class="actions"><button @click=${() => { chat.turns = []; update(); }}>New conversation</button></div>
      </section>
      <section aria-label="Conversation">
        <div class="turns">${chat.turns.map(shownTurn)}</div>
        <form @submit=${(/** @type {Event} */ event) => { event.preventDefault(); void send(); }}
          @keydown=${(/** @type {KeyboardEvent} */ event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); void send(); }
          }}>
          <label for="message">Message
            <textarea id="message" .value=${chat.text} placeholder=${model().examples?.[0] ?? ""}
              @input=${(/** @type {any} */ event) => { chat.text = event.target.value; update(); }}></textarea></label>
          <div class="actions">
            <button class="main" type="submit" ?disabled=${!chat.text.trim() || chat.abort !== null}>Send</button>
            ${chat.abort ? html`<button type="button" @click=${stop}>Stop</button>` : nothing}
            <span class="hint">Ctrl+Enter sends, Esc stops</span></div>
        </form>
      </section></main>`;
  };

  const stop = () => chat.abort?.abort();
  return { view, stop };
}
