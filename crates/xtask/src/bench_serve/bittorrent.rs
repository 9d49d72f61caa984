//! As much of BitTorrent (BEP 3) as a leecher needs that asks for blocks in order and throws them away.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

pub type InfoHash = [u8; 20];

/// What a request asks for, as all clients do.
const BLOCK_BYTES: u64 = 16 << 10;
/// Blocks asked for and not here.
const OUTSTANDING: u64 = 128;
/// No seeder is silent for so long.
const PATIENCE: Duration = Duration::from_secs(60);
const UNCHOKE: u8 = 1;
const INTERESTED: u8 = 2;
const REQUEST: u8 = 6;
const PIECE: u8 = 7;

/// The info hash in a magnet link within `line`.
pub fn info_hash(line: &str) -> Option<InfoHash> {
    let hex = line.split_once("urn:btih:")?.1.get(..40)?;
    let mut hash = [0; 20];
    for (byte, pair) in hash.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

/// Takes a torrent of one file of `bytes`, a power of two's multiple of blocks, from the seeder at `address`.
pub fn leech(address: SocketAddr, torrent: InfoHash, bytes: u64, number: u64) -> Result<()> {
    let mut stream = connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut handshake = b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0".to_vec();
    handshake.extend(torrent);
    handshake.extend(format!("-HW0001-{number:012}").as_bytes());
    stream.write_all(&handshake)?;
    let mut from = BufReader::with_capacity(256 << 10, stream.try_clone()?);
    let mut theirs = [0; 68];
    from.read_exact(&mut theirs).context("no handshake")?;
    ensure!(theirs[28..48] == torrent, "another torrent");
    stream.write_all(&[0, 0, 0, 1, INTERESTED])?;
    let mut piece_bytes = None;
    let (mut asked, mut got) = (0, 0);
    while got < bytes {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let length = u64::from(u32::from_be_bytes(length));
        if length == 0 {
            continue;
        }
        let mut kind = [0];
        from.read_exact(&mut kind)?;
        let mut body = (&mut from).take(length - 1);
        match kind[0] {
            // A bit for each piece: so many pieces of a power of two make the file.
            5 => {
                let mut bits = Vec::new();
                body.read_to_end(&mut bits)?;
                let pieces: u64 = bits.iter().map(|b| u64::from(b.count_ones())).sum();
                piece_bytes = Some(bytes.div_ceil(pieces.max(1)).next_power_of_two());
            }
            UNCHOKE => {}
            PIECE => got += length - 9,
            _ => {}
        }
        std::io::copy(&mut body, &mut std::io::sink())?;
        let unchoked = kind[0] == UNCHOKE || asked > 0;
        if let (true, Some(piece_bytes)) = (unchoked, piece_bytes) {
            ask(&mut stream, piece_bytes, &mut asked, got, bytes)?;
        }
    }
    Ok(())
}

/// Tops the requests up, a quarter at a time.
fn ask(stream: &mut TcpStream, piece_bytes: u64, asked: &mut u64, got: u64, bytes: u64) -> Result<()> {
    if *asked - got > OUTSTANDING * 3 / 4 * BLOCK_BYTES {
        return Ok(());
    }
    let mut requests = Vec::new();
    while *asked < bytes && *asked - got < OUTSTANDING * BLOCK_BYTES {
        let len = BLOCK_BYTES.min(bytes - *asked);
        requests.extend([0, 0, 0, 13, REQUEST]);
        for number in [*asked / piece_bytes, *asked % piece_bytes, len] {
            requests.extend((number as u32).to_be_bytes());
        }
        *asked += len;
    }
    Ok(stream.write_all(&requests)?)
}

/// The seeder may just be starting.
fn connect(address: SocketAddr) -> Result<TcpStream> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return Ok(stream),
            Err(e) if Instant::now() > deadline => bail!("rqbit does not listen: {e}"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_magnet_link_names_its_torrent() {
        let hash = info_hash("torrent: magnet:?xt=urn:btih:00ff10aabbccddeeff00112233445566778899aa&dn=x").unwrap();
        assert_eq!((hash[0], hash[1], hash[19]), (0, 255, 0xaa));
        assert_eq!(info_hash("no link"), None);
        assert_eq!(info_hash("urn:btih:00"), None);
    }
}
