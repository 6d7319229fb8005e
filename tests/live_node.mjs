// Run functions in node as the live page would in a browser: (modules, argument) -> result. All as JSON, from stdin.
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const read = fetch;
globalThis.fetch = async (url) =>
  String(url).startsWith("file:") ? new Response(await readFile(fileURLToPath(url))) : read(url);

const { site, modules, questions } = JSON.parse(await readFile("/dev/stdin", "utf8"));
const live = Object.assign({ site }, ...(await Promise.all(modules.map((name) => import(`${site}/${name}.js`)))));
const answers = [];
for (const { code, argument } of questions) answers.push(await (0, eval)(`(${code})`)(live, argument));
console.log(JSON.stringify(answers, (_, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value)));
