// That hls.js's own types take what the SDK gives; only compiled.

import Hls from 'hls.js';
import { Headwater } from '../src/index.ts';

export async function plays(video: HTMLMediaElement): Promise<void> {
  const headwater = await Headwater.connect({ control: 'cc.example:7400' });
  const { url, loader } = (await headwater.stream('hw://cc.example/channel#key=00')).hls();
  const hls = new Hls({ loader });
  hls.loadSource(url);
  hls.attachMedia(video);
}
