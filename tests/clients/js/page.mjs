// The login page in a window that has no more than the page needs: node page.mjs JOB
//
// JOB is JSON: the page's address, what is typed into which field, and whether the app has put its
// own `onLogin` there.  What comes of it is printed as JSON.

import vm from "node:vm";

const job = JSON.parse(process.argv[2]);
const response = await fetch(job.address);
const html = await response.text();
const policy = response.headers.get("content-security-policy");
const [, nonce, script] = html.match(/<script nonce="([^"]+)">([^]*?)<\/script>/);
if (!policy.includes(`script-src 'nonce-${nonce}'`)) throw new Error("the script is not let in");

const ids = Object.fromEntries([...html.matchAll(/ id="([^"]+)"/g)].map(([, id]) => [id, {}]));
const names = [...html.matchAll(/<input name="([^"]+)"/g)].map(([, name]) => name);
const fields = Object.fromEntries(names.map((name) => [name, { value: "" }]));
const seen = { asked: [], told: [], heard: 0, replaced: null };
let settle;
const settled = new Promise((resolve) => (settle = resolve));

Object.assign(ids.login, {
  elements: fields,
  addEventListener: (kind, listener) => (ids.login[kind] = listener),
});
Object.defineProperty(ids.trouble, "textContent", {
  get: () => seen.trouble,
  set: (text) => {
    seen.trouble = text;
    if (text) settle();
  },
});
const location = new URL(job.address);
const window = { matrixLogin: undefined };
const world = vm.createContext({
  window,
  location,
  URLSearchParams,
  history: { replaceState: (state, title, path) => (seen.replaced = path) },
  document: { getElementById: (id) => ids[id] ?? null },
  fetch: async (address, options) => {
    const asked = new URL(address, location);
    if (asked.origin !== location.origin) throw new Error("connect-src forbids it");
    seen.asked.push({ path: asked.pathname, body: JSON.parse(options.body) });
    return fetch(asked, options);
  },
});
vm.runInContext(script, world);
if (job.listens) {
  window.matrixLogin.onLogin = (told) => {
    seen.told.push(told);
    settle();
  };
} else {
  setTimeout(settle, 1000);
}
seen.before = fields.token.value;
for (const [name, value] of Object.entries(job.typed)) fields[name].value = value;
if (ids.login.hidden !== false) throw new Error("the form is not shown");
ids.login.submit({ preventDefault: () => (seen.heard += 1) });
await settled;
seen.done = ids.done.hidden === false;
seen.left = fields.password.value + fields.token.value;
console.log(JSON.stringify(seen));
