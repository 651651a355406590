package tidewatch.stream;

import java.nio.ByteBuffer;

/** The last windows of a series in one value: the end of the newest, then of each, oldest first, its age and inputs. */
final class Ring {
    private Ring() {}

    /**
     * The ring with one more window, and without those that are more than asked for or older than an int of milliseconds (24
     * days); nor the newest so far, if its end is none of those that are kept.
     */
    static byte[] add(byte[] ring, Window window, Handed how) {
        int size = Integer.BYTES + window.inputs.length * Double.BYTES;
        ByteBuffer old = ByteBuffer.wrap(ring == null || (ring.length - Long.BYTES) % size != 0 ? new byte[Long.BYTES] : ring);
        int known = (old.capacity() - Long.BYTES) / size;
        if (known > 0 && how.everyMs() > 1 && old.getLong(0) % how.everyMs() != 0) {
            known--;
        }
        long later = window.end - old.getLong(0);
        int first = Math.max(0, known + 1 - how.lookback());
        while (first < known && (later < 0 || old.getInt(Long.BYTES + first * size) + later > Integer.MAX_VALUE)) {
            first++;
        }
        ByteBuffer made = ByteBuffer.allocate(Long.BYTES + (known - first + 1) * size);
        made.putLong(window.end);
        for (int i = first; i < known; i++) {
            int at = Long.BYTES + i * size;
            made.putInt((int) (old.getInt(at) + later));
            made.put(made.position(), old, at + Integer.BYTES, size - Integer.BYTES);
            made.position(made.position() + size - Integer.BYTES);
        }
        made.putInt(0);
        for (double x : window.inputs) {
            made.putDouble(x);
        }
        return made.array();
    }

    static long newest(byte[] ring) {
        return ByteBuffer.wrap(ring).getLong();
    }

    /** Write the ends and then each input, oldest first and the newest last; what is missing at the beginning stays as it is. */
    static void read(byte[] ring, int inputs, int lookback, double[] to, int at) {
        ByteBuffer from = ByteBuffer.wrap(ring);
        long newest = from.getLong();
        int size = Integer.BYTES + inputs * Double.BYTES;
        int known = (ring.length - Long.BYTES) / size;
        for (int i = 0; i < known; i++) {
            int place = at + lookback - known + i;
            to[place] = newest - from.getInt();
            for (int k = 1; k <= inputs; k++) {
                to[place + k * lookback] = from.getDouble();
            }
        }
    }
}
