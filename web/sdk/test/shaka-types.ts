// That Shaka's own types take what the SDK gives; only compiled.

import shaka from 'shaka-player';
import { Headwater } from '../src/index.ts';

export async function plays(video: HTMLMediaElement): Promise<void> {
  const headwater = await Headwater.connect({ control: 'cc.example:7400' });
  const { url, mimeType } = (await headwater.stream('hw://cc.example/channel#key=00')).shaka(shaka);
  const player = new shaka.Player();
  await player.attach(video);
  await player.load(url, null, mimeType);
}
