// OpenAI's JavaScript client against a server: only the address is another.
//
//     BRISK_ADDRESS=http://127.0.0.1:8420 node --test journey.test.mjs
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI, { toFile } from "openai";

const client = new OpenAI({ baseURL: `${process.env.BRISK_ADDRESS}/v1`, apiKey: "x" });
const messages = [{
  role: "user",
  content: "Mia has 34 beads. Monday: finds 7 more. Tuesday: gives 5 to Tom. Wednesday: doubles the number. " +
    "Thursday: loses 8. Friday: buys 3 bags of 6. Saturday: sells 9. How many beads does Mia have now?",
}];
const picture = (entry) => Buffer.from(entry.b64_json, "base64");
const draw = (fields) => client.images.generate({ prompt: "red heart", seed: 7, steps: 4, ...fields });

test("pictures, links and seeds", async () => {
  const drawn = await draw({ size: "128x128" });
  const linked = await draw({ response_format: "url" });
  const fetched = Buffer.from(await (await fetch(linked.data[0].url)).arrayBuffer());
  assert.ok(fetched.equals(picture(drawn.data[0])));
  assert.equal(drawn.data[0].seed, 7);
});

test("an edit starts from its picture", async () => {
  const drawn = await draw({});
  const image = await toFile(picture(drawn.data[0]), "heart.png", { type: "image/png" });
  const edited = await client.images.edit({ image, prompt: "green heart", strength: 0.7, steps: 4, seed: 1 });
  assert.ok(!picture(edited.data[0]).equals(picture(drawn.data[0])));
});

test("a picture streams", async () => {
  const kinds = [];
  for await (const event of await draw({ stream: true, partial_images: 2, steps: 8 })) kinds.push(event.type);
  assert.deepEqual(kinds, ["partial_image", "partial_image", "completed"].map((kind) => `image_generation.${kind}`));
});

test("deltas join to the text", async () => {
  const ask = { model: "llada-arithmetic", messages, max_tokens: 128, seed: 0 };
  const answer = await client.chat.completions.create(ask);
  let joined = "";
  const stream = await client.chat.completions.create({ ...ask, stream: true });
  for await (const chunk of stream) joined += chunk.choices[0]?.delta?.content ?? "";
  assert.equal(joined, answer.choices[0].message.content);
  assert.match(joined, /73/);
});

test("errors are the client's exceptions", async () => {
  const wrong = client.images.generate({ prompt: "x", stpes: 3 });
  await assert.rejects(wrong, (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.deepEqual([error.code, error.param], ["unknown_field", "stpes"]);
    return true;
  });
  await assert.rejects(client.models.retrieve("nothing"), OpenAI.NotFoundError);
});

test("a stream that is left stops its job", async () => {
  const stream = await draw({ stream: true, n: 8, steps: 100, size: "768x768" });
  setTimeout(() => stream.controller.abort(), 500);
  try {
    for await (const _ of stream);
  } catch (error) {
    assert.ok(error instanceof OpenAI.APIUserAbortError || error.name === "AbortError", error);
  }
  for (let tries = 0; ; tries++) {
    const status = await (await fetch(`${process.env.BRISK_ADDRESS}/brisk/v1/status`)).json();
    if (!status.running.some((job) => job.kind === "image")) break;
    assert.ok(tries < 1200, "the job goes on");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
});
