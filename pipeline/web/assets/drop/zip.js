// Several files as one zip, stored and not packed, under names that the caller gives.

const CRC = new Uint32Array(256).map((_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

// A record of fields, each [bytes it takes, value], all little-endian.
function record(...fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [size]) => sum + size, 0)));
  let at = 0;
  for (const [size, value] of fields) {
    if (size === 4) view.setUint32(at, value, true);
    else view.setUint16(at, value, true);
    at += size;
  }
  return view.buffer;
}

// entries: [name, File] pairs, fewer than 65536 and less than 4 GiB in all. Files stay where they are until they are sent.
export async function zipped(entries) {
  const [parts, directory] = [[], []];
  let offset = 0;
  for (const [name, file] of entries) {
    const text = new TextEncoder().encode(name);
    const crc = crc32(new Uint8Array(await file.arrayBuffer()));
    // Version 2.0, no flags, stored, a date of 1980-01-01 (zero is none), sizes packed and unpacked.
    const same = [[2, 20], [2, 0], [2, 0], [2, 0], [2, 33], [4, crc], [4, file.size], [4, file.size], [2, text.length], [2, 0]];
    parts.push(record([4, 0x04034b50], ...same), text, file);
    directory.push(record([4, 0x02014b50], [2, 20], ...same, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]), text);
    offset += 30 + text.length + file.size;
  }
  const size = directory.reduce((sum, part) => sum + part.byteLength, 0);
  const n = entries.length;
  const end = record([4, 0x06054b50], [2, 0], [2, 0], [2, n], [2, n], [4, size], [4, offset], [2, 0]);
  return new Blob([...parts, ...directory, end]);
}
