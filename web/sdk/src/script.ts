/** The script-tag file: `Headwater` is a global. */

import { Headwater } from './index.ts';

(globalThis as { Headwater?: typeof Headwater }).Headwater = Headwater;
