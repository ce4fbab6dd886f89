/** The sources are TypeScript: esbuild takes the types off as Node loads them. */

import { register } from "node:module";

register("./strip.mjs", import.meta.url);
