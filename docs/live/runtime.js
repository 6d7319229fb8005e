// ONNX Runtime Web, from the page's own folder: it works without a network, and with one thread.

/**
 * @param {string} baseUrl The folder that build.py wrote the runtime to.
 * @returns {Promise<any>} The module `ort`: https://onnxruntime.ai/docs/api/js
 */
export async function loadRuntime(baseUrl) {
  const folder = new URL(`${baseUrl}/`, globalThis.document?.baseURI);
  const [ort, wasm] = await Promise.all([
    import(new URL("ort.wasm.bundle.min.mjs", folder).href),
    fetch(new URL("ort-wasm-simd-threaded.wasm.gz", folder)).then(inflated),
  ]);
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.numThreads = 1; // more need a server that isolates pages from others
  return ort;
}

/** The bytes of a gzip file; servers that say what it is have the browser inflate it. @param {Response} response */
async function inflated(response) {
  if (!response.ok) throw new Error(`${response.url} could not be loaded: ${response.status} ${response.statusText}`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  const isGzip = bytes[0] === 0x1f && bytes[1] === 0x8b;
  if (!isGzip) return bytes.buffer;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
