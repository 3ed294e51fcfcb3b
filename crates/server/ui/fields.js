// Controls for the fields of a task, made from what the server says of them.
import { html, nothing } from "./vendor/lit-html/lit-html.js";

/**
 * @typedef {{schema: any, class: string, honoured?: boolean, default?: string, rare?: boolean, heading?: string,
 *   needs?: string}} Field
 */

/** A name as people read it. @param {string} name */
export const words = (name) => {
  const text = name.replaceAll("_", " ");
  return text[0].toUpperCase() + text.slice(1);
};

/** Fields that a model honours. @param {Record<string, Field>} fields @returns {[string, Field][]} */
export const honoured = (fields) =>
  Object.entries(fields).filter(([, field]) => field.class === "model" && field.honoured);

/**
 * The value of a control as the field takes it; undefined for none.
 * @param {Field} field @param {string | boolean} value
 */
export function read(field, value) {
  const { type } = field.schema;
  if (type === "boolean") return value ? true : undefined;
  const text = String(value).trim();
  if (text === "") return undefined;
  if (type === "integer" || type === "number") return Number(text);
  if (type === "array") return text.split(",").map((part) => Number(part.trim()));
  return text;
}

/**
 * A control for a field.
 * @param {string} name @param {Field} field @param {any} value
 * @param {(value: any) => void} change
 */
export function control(name, field, value, change) {
  const { schema } = field;
  // The rest of what holds where it is absent is in the documentation.
  const usual = field.default ? `usually ${field.default.split(",")[0]}` : "";
  const id = `field-${name}`;
  if (schema.type === "boolean") {
    return html`<label class="check" title=${schema.description}>
      <input id=${id} type="checkbox" .checked=${Boolean(value)}
        @change=${(/** @type {any} */ event) => change(event.target.checked)}>${words(name)}</label>`;
  }
  const shown = Array.isArray(value) ? value.join(", ") : (value ?? "");
  const input = (/** @type {any} */ event) => change(event.target.value);
  if (schema.enum) {
    return html`<label for=${id} title=${schema.description}>${words(name)}
      <select id=${id} @change=${input}>
        <option value="" ?selected=${shown === ""}>${usual || "the model's"}</option>
        ${schema.enum.map((/** @type {string} */ word) =>
          html`<option value=${word} ?selected=${word === shown}>${word}</option>`)}
      </select></label>`;
  }
  if (schema.contentEncoding) {
    return html`<label for=${id} title=${schema.description}>${words(name)}
      <input id=${id} type="file" accept="image/png,image/jpeg,image/webp"
        @change=${async (/** @type {any} */ event) => {
          const file = event.target.files[0];
          change(file ? await dataUrl(file) : "");
        }}></label>`;
  }
  const number = schema.type === "integer" || schema.type === "number";
  return html`<label for=${id} title=${schema.description}>${words(name)}
    <input id=${id} type=${number ? "number" : "text"} placeholder=${usual || nothing}
      min=${number ? (schema.minimum ?? nothing) : nothing} max=${number ? (schema.maximum ?? nothing) : nothing}
      step=${schema.type === "number" ? "any" : nothing} .value=${String(shown)} @input=${input}></label>`;
}

/** @param {Blob} file @returns {Promise<string>} */
export function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
