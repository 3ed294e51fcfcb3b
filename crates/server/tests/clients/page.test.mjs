// The page in Debian's Chromium: what people do with it, and nothing that it may not do.
//
//     BRISK=target/debug/brisk node --test page.test.mjs
//
// With SCREENSHOTS=folder pictures of it are kept there.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { Builder, By, Key, logging, until } from "selenium-webdriver";
import chrome from "selenium-webdriver/chrome.js";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/** How long anything may take, in milliseconds: a machine that does much else is slow, and none is wrong for that. */
const LONG = 60_000;
const folder = mkdtempSync(join(tmpdir(), "brisk-page-"));
const screenshots = process.env.SCREENSHOTS;
/** @type {import("node:child_process").ChildProcess} */ let server;
/** @type {import("selenium-webdriver").WebDriver} */ let driver;
let address = "";

async function serve(port = 0, ...more) {
  server = spawn(process.env.BRISK ?? "brisk", ["serve", "--listen", `127.0.0.1:${port}`, ...more]);
  let said = "";
  address = await new Promise((resolve, reject) => {
    server.once("exit", () => reject(new Error(`no server: ${said}`)));
    server.stderr.on("data", (chunk) => {
      said += chunk;
      const found = /(http:\/\/[0-9.:]+)\s/.exec(said);
      if (found) resolve(found[1]);
    });
  });
}

async function end() {
  if (server.exitCode !== null || server.signalCode !== null) return;
  const ended = once(server, "exit");
  server.kill("SIGKILL");
  await ended;
}

before(async () => {
  await serve();
  const options = new chrome.Options()
    .addArguments("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1440,900",
      "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    .setUserPreferences({ "download.default_directory": folder });
  options.setBinaryPath(process.env.CHROMIUM ?? "/usr/bin/chromium");
  const prefs = new logging.Preferences();
  prefs.setLevel(logging.Type.BROWSER, logging.Level.ALL);
  options.setLoggingPrefs(prefs);
  driver = await new Builder()
    .forBrowser("chrome")
    .setChromeOptions(options)
    .setChromeService(new chrome.ServiceBuilder(process.env.CHROMEDRIVER ?? "/usr/bin/chromedriver"))
    .build();
  await driver.manage().setTimeouts({ script: LONG, pageLoad: 2 * LONG });
  await driver.get(address);
  await see("#prompt");
});

after(async () => {
  await driver?.quit();
  await end();
});

/** Errors that a test brings about itself. */
let expected = /$^/;
afterEach(async () => {
  const entries = await driver.manage().logs().get(logging.Type.BROWSER);
  const wrong = entries.map((entry) => entry.message).filter((message) => !expected.test(message));
  expected = /$^/;
  assert.deepEqual(wrong, [], "the console is not silent");
});

const all = (css) => driver.findElements(By.css(css));
const see = (css) => wait(css, until.elementLocated(By.css(css)));

/** Waits until something holds; tells what the page and the server say where that is in vain. */
async function wait(what, condition) {
  try {
    return await driver.wait(condition, LONG, what);
  } catch (error) {
    await picture(`failed-${what.replaceAll(/[^a-z0-9]/gi, "-")}`);
    const page = await driver.executeScript("return document.body.innerText").catch(String);
    const status = await fetch(`${address}/brisk/v1/status`).then((reply) => reply.text()).catch(String);
    error.message += `\n-- the page: ${page}\n-- the server: ${status}`;
    throw error;
  }
}

/** Acts on the element that `find` gives, once it can be: it may be drawn anew, hidden or disabled for a moment. */
async function act(what, find, work) {
  const passing = ["StaleElementReferenceError", "ElementNotInteractableError", "ElementClickInterceptedError",
    "InvalidElementStateError"];
  return wait(what, async () => {
    const element = await find();
    if (!element) return false;
    try {
      if (!(await element.isDisplayed()) || !(await element.isEnabled())) return false;
      await work(element);
      return true;
    } catch (error) {
      if (passing.includes(error.name)) return false;
      throw error;
    }
  });
}

const press = (css, at = 0) => act(css, async () => (await all(css))[at], (element) => element.click());
const click = (text) => act(text, async () =>
  (await driver.findElements(By.xpath(`//button[normalize-space()="${text}"]`)))[0], (element) => element.click());

/** The value of a field, or null without one. */
const value = (css) => driver.executeScript("return document.querySelector(arguments[0])?.value ?? null", css);
const holds = (css, text) => wait(`${css} holds ${text}`, async () => (await value(css)) === text);

async function fill(css, text) {
  await act(css, async () => (await all(css))[0], (field) =>
    field.sendKeys(Key.chord(Key.CONTROL, "a"), Key.BACK_SPACE, text));
  await holds(css, text);
}

const count = async () => (await all(".gallery li")).length;
const counted = (number) => wait(`${number} pictures`, async () => (await count()) === number);

/** Begins to draw pictures of some side in pixels; large ones take so long that they can be met on their way. */
async function begin(prompt, { seed, steps = "4", pictures = "1", side = "" } = {}) {
  await fill("#prompt", prompt);
  await fill("#field-width", side);
  await fill("#field-height", side);
  await fill("#field-steps", steps);
  await fill("#count", pictures);
  if (seed) await fill("#field-seed", seed);
  await press("form button.main");
}

/** Draws, and waits for the picture. */
async function draw(prompt, fields) {
  const drawn = await count();
  await begin(prompt, fields);
  await wait(`a picture of ${prompt}`, async () => (await count()) === drawn + 1 && (await all("progress")).length === 0);
}

/** Shows a picture of the gallery large; the newest is the first. */
async function choose(at) {
  await press(".gallery button", at);
  await wait(`picture ${at} is chosen`, () => driver.executeScript(
    "return document.querySelectorAll('.gallery button')[arguments[0]]?.ariaPressed === 'true'", at));
}

/** Hash of the file of the picture that is shown large, from where the page keeps it. */
const shown = () => driver.executeAsyncScript(`
  const done = arguments[arguments.length - 1];
  const at = [...document.querySelectorAll(".gallery button")].findIndex((button) => button.ariaPressed === "true");
  const open = indexedDB.open("brisk", 1);
  open.onsuccess = () => {
    open.result.transaction("pictures").objectStore("pictures").index("when").getAll().onsuccess = async (event) => {
      open.result.close();
      const { blob } = event.target.result.reverse()[at];
      const hash = await crypto.subtle.digest("SHA-256", await blob.arrayBuffer());
      done(Array.from(new Uint8Array(hash)).join());
    };
  };`);

async function axe(where) {
  await driver.executeScript(AXE);
  const found = await driver.executeAsyncScript("axe.run().then(arguments[arguments.length - 1])");
  const serious = found.violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const told = serious.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" | ")}`);
  assert.deepEqual(told, [], where);
}

async function picture(name) {
  if (!screenshots) return;
  mkdirSync(screenshots, { recursive: true });
  writeFileSync(join(screenshots, `${name}.png`), await driver.takeScreenshot(), "base64");
}

const size = (width, height) => driver.sendDevToolsCommand("Emulation.setDeviceMetricsOverride",
  { width, height, deviceScaleFactor: 1, mobile: false });
const theme = (name) => driver.sendDevToolsCommand("Emulation.setEmulatedMedia",
  { features: [{ name: "prefers-color-scheme", value: name }] });

/** Another server, at another address: its page has kept nothing. */
async function anew() {
  await driver.get("about:blank");
  await end();
  await serve();
  await driver.get(address);
}

test("a server that starts draws soon", async (context) => {
  const began = performance.now();
  await anew();
  await fill("#prompt", "red heart");
  await press("form button.main");
  await counted(1);
  // Told, as a busy machine may be slow: BENCHMARKS.md has what a quiet one took.
  context.diagnostic(`${((performance.now() - began) / 1000).toFixed(1)} s from the start to the first picture`);
  await anew();
  await see("#prompt");
});

test("a picture is drawn, and its settings draw the same bytes", async () => {
  await draw("red heart", { seed: "7" });
  const first = await shown();
  await draw("blue square", { seed: "8" });
  assert.notEqual(await shown(), first);
  await choose(1);
  assert.equal(await shown(), first);
  await click("Use these settings");
  await holds("#prompt", "red heart");
  await holds("#field-seed", "7");
  await press("form button.main");
  await counted(3);
  assert.equal(await shown(), first);
});

test("a job is stopped in the middle, by Esc", async () => {
  const drawn = await count();
  await begin("green tree", { steps: "100", pictures: "8", side: "1024" });
  await see("progress");
  await act("#prompt", async () => (await all("#prompt"))[0], (prompt) => prompt.sendKeys(Key.ESCAPE));
  await wait("no job", async () => (await all("progress")).length === 0);
  await wait("the server is idle", async () => {
    const { running, queued } = await (await fetch(`${address}/brisk/v1/status`)).json();
    return running.length === 0 && queued === 0;
  });
  assert.equal(await count(), drawn);
});

test("a page that is loaded anew finds its job and its pictures", async () => {
  const drawn = await count();
  await begin("yellow star", { steps: "100", side: "512" });
  await see("progress");
  await driver.navigate().refresh();
  await counted(drawn + 1);
});

test("a picture of brisk's restores its settings, another one is a start", async () => {
  await choose((await count()) - 1);
  await click("Download");
  const file = join(folder, "brisk-7.png");
  await wait("the download", () => { try { return readFileSync(file).length > 0; } catch { return false; } });
  await fill("#prompt", "something else");
  await (await see("#file")).sendKeys(file);
  await holds("#prompt", "red heart");
  await holds("#field-seed", "7");
  const plain = join(folder, "plain.png");
  const bytes = await (await fetch(`${address}/v1/images/generations`, {
    method: "POST", headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: "cat", steps: 2, seed: 1, file_metadata: false }),
  })).json();
  writeFileSync(plain, bytes.data[0].b64_json, "base64");
  await (await see("#file")).sendKeys(plain);
  await see(".start img");
  await draw("blue cat", { seed: "3" });
  await click("Start from nothing");
  await see("#file");
});

test("the answer to a question fills in", async () => {
  await press("#tab-text");
  await press(".welcome button");
  await see(".turn.assistant .hint");
  const said = () => driver.executeScript("return document.querySelector('.turn.assistant .said').textContent");
  await wait("an answer", async () => /Answer: -?[0-9]+/.test(await said()));
  await axe("text");
  await click("New conversation");
  await see(".welcome");
  await press("#tab-draw");
  await see("#prompt");
});

test("everything by keyboard alone", async () => {
  const drawn = await count();
  await driver.executeScript("document.activeElement.blur(); window.scrollTo(0, 0)");
  const focused = () => driver.executeScript("return document.activeElement.id || document.activeElement.textContent.trim()");
  for (let tabs = 0; (await focused()) !== "prompt"; tabs++) {
    assert.ok(tabs < 20, "the prompt cannot be reached");
    await driver.actions().sendKeys(Key.TAB).perform();
  }
  await driver.actions().keyDown(Key.CONTROL).sendKeys("a").keyUp(Key.CONTROL).sendKeys("orange circle").perform();
  await holds("#prompt", "orange circle");
  await driver.actions().keyDown(Key.CONTROL).sendKeys(Key.ENTER).keyUp(Key.CONTROL).perform();
  await counted(drawn + 1);
  await wait("the picture is shown", async () => (await all("progress")).length === 0);
  const names = new Set();
  for (let tabs = 0; tabs < 80; tabs++) {
    await driver.actions().sendKeys(Key.TAB).perform();
    names.add(await focused());
  }
  for (const name of ["field-steps", "file", "Use these settings", "New seed", "Delete"]) assert.ok(names.has(name), name);
});

test("both themes, both widths, with nothing that axe finds serious", async () => {
  if (screenshots) {
    for (const prompt of ["sun", "pizza", "cat face", "green apple", "hot dog", "house with garden", "rocket", "red heart"]) {
      await draw(prompt, { seed: "7", steps: "20" });
    }
  }
  for (const scheme of ["light", "dark"]) {
    for (const [width, height] of [[1440, 900], [360, 640]]) {
      await theme(scheme);
      await size(width, height);
      for (const tab of ["draw", "text"]) {
        await press(`#tab-${tab}`);
        await see(tab === "draw" ? "#prompt" : "#message");
        if (tab === "text" && (await all(".turn")).length === 0) {
          await press(".welcome button");
          await see(".turn.assistant .hint");
        }
        await driver.executeScript("window.scrollTo(0, 0)");
        await picture(`${tab}-${scheme}-${width}`);
        await axe(`${tab}, ${scheme}, ${width}`);
        const wide = await driver.executeScript("return document.documentElement.scrollWidth");
        assert.ok(wide <= width, `${tab} is ${wide} wide on ${width}`);
        const small = await driver.executeScript(`
          return [...document.querySelectorAll("button, input, select, textarea, summary")]
            .filter((each) => each.checkVisibility() && each.type !== "checkbox" && each.getBoundingClientRect().height < 44)
            .map((each) => each.outerHTML.slice(0, 100));`);
        assert.deepEqual(small, [], "targets under 44 pixels");
      }
    }
  }
  await theme("light");
  await size(1440, 900);
  await press("#tab-draw");
  await see("#prompt");
});

test("nothing but the server's own files is asked for", async () => {
  const asked = await driver.executeScript("return performance.getEntriesByType('resource').map((entry) => entry.name)");
  for (const name of asked) assert.ok(name.startsWith(address) || name.startsWith("blob:") || name.startsWith("data:"), name);
});

test("a server that comes back is found again", async () => {
  expected = /ERR_CONNECTION|ERR_INCOMPLETE|ERR_EMPTY|network error/;
  const { port } = new URL(address);
  await end();
  await see("header .warning");
  await serve(Number(port));
  await wait("the server", async () => (await all("header .warning")).length === 0);
  await draw("red circle", { seed: "5" });
});

test("two hundred pictures are shown", async () => {
  const own = await count();
  await driver.executeAsyncScript(`
    const done = arguments[arguments.length - 1];
    const open = indexedDB.open("brisk", 1);
    open.onsuccess = () => {
      const store = open.result.transaction("pictures", "readwrite").objectStore("pictures");
      store.getAll().onsuccess = (event) => {
        const one = event.target.result[0];
        for (let i = 0; i < 200 - arguments[0]; i++) store.put({ ...one, id: "copy-" + i, when: i });
        store.transaction.oncomplete = () => { open.result.close(); done(); };
      };
    };`, own);
  await driver.navigate().refresh();
  await counted(200);
  await draw("red heart", { seed: "9" });
});

test("a key is asked for where one is needed", async () => {
  expected = /401|ERR_CONNECTION|ERR_INCOMPLETE|ERR_EMPTY|network error/;
  await end();
  const keys = join(folder, "keys");
  writeFileSync(keys, "a-key-of-this-test-0123456789abcdef0123456789\n");
  await serve(0, "--api-key-file", keys);
  await driver.get(address);
  await act("#key", async () => (await all("#key"))[0], (field) =>
    field.sendKeys("a-key-of-this-test-0123456789abcdef0123456789", Key.ENTER));
  await see("#prompt");
  await draw("red heart", { seed: "7" });
});
