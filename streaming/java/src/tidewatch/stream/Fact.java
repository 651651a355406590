package tidewatch.stream;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/** What is known of a thing (a baseline of an entity, a model of a use case) from a moment on, until a newer fact replaces it. */
public class Fact {
    private static final int HOURS = 24;
    /** In place of the steps of an hour whose center is not known. */
    private static final short UNKNOWN = Short.MIN_VALUE;

    public String name;
    public long validFrom;
    public String[] texts;
    /** A baseline's numbers, as {@link #pack} made them; empty for a model. */
    public byte[] numbers;

    static Fact of(String name, long validFrom, String[] texts, byte[] numbers) {
        Fact made = new Fact();
        made.name = name;
        made.validFrom = validFrom;
        made.texts = texts;
        made.numbers = numbers;
        return made;
    }

    /** All but the name, as it is kept under its name. */
    byte[] toBytes() {
        byte[][] words = new byte[texts.length][];
        int size = Long.BYTES + 1 + numbers.length;
        for (int i = 0; i < texts.length; i++) {
            words[i] = texts[i] == null ? new byte[0] : texts[i].getBytes(StandardCharsets.UTF_8);
            size += Short.BYTES + words[i].length;
        }
        ByteBuffer to = ByteBuffer.allocate(size).putLong(validFrom).put((byte) texts.length);
        for (byte[] word : words) {
            to.putShort((short) word.length).put(word);
        }
        return to.put(numbers).array();
    }

    static Fact ofBytes(String name, byte[] bytes) {
        ByteBuffer from = ByteBuffer.wrap(bytes);
        long validFrom = from.getLong();
        String[] texts = new String[from.get()];
        for (int i = 0; i < texts.length; i++) {
            byte[] word = new byte[from.getShort()];
            from.get(word);
            texts[i] = new String(word, StandardCharsets.UTF_8);
        }
        byte[] numbers = new byte[from.remaining()];
        from.get(numbers);
        return of(name, validFrom, texts, numbers);
    }

    /**
     * A baseline's numbers in a third of their size: of each signal the scale, the center of its first known hour, and what the
     * others differ from that, as whole numbers of a step. A center is off by a 512th of the scale at most; where that would
     * take more steps than there are, what they differ is kept as floats, and a center is off by 2^-24 of it at most. One that
     * is the same at all hours is exact.
     *
     * @return empty if the numbers are no baseline: {@code center} has 24 numbers for each of {@code scale}
     */
    static byte[] pack(Double[] center, Double[] scale) {
        if (center == null || scale == null || scale.length == 0 || center.length != HOURS * scale.length) {
            return new byte[0];
        }
        int d = scale.length;
        ByteBuffer to = ByteBuffer.allocate(d * (3 * Double.BYTES + HOURS * Float.BYTES));
        for (int i = 0; i < d; i++) {
            double base = Double.NaN;
            double farthest = 0;
            for (int hour = 0; hour < HOURS; hour++) {
                double x = number(center[hour * d + i]);
                base = Double.isNaN(base) ? x : base;
                farthest = Double.isNaN(x) ? farthest : Math.max(farthest, Math.abs(x - base));
            }
            double step = farthest / Short.MAX_VALUE;
            boolean stepped = step == 0 || step <= number(scale[i]) / 256;
            to.putDouble(number(scale[i])).putDouble(base).putDouble(stepped ? step : Double.NaN);
            for (int hour = 0; hour < HOURS; hour++) {
                double off = number(center[hour * d + i]) - base;
                if (!stepped) {
                    to.putFloat((float) off);
                } else {
                    to.putShort(Double.isNaN(off) ? UNKNOWN : step == 0 ? 0 : (short) Math.round(off / step));
                }
            }
        }
        return Arrays.copyOf(to.array(), to.position());
    }

    /**
     * Write the d signals' centers of an hour, and behind them their scales.
     *
     * @param bytes a baseline, as {@link #toBytes} made it
     * @return the first letter of whose it is; a blank, and nothing written, if that is not said or it is not of d signals
     */
    static char unpack(byte[] bytes, int hour, int d, double[] to, int at) {
        ByteBuffer from = ByteBuffer.wrap(bytes).position(Long.BYTES);
        char whose = ' ';
        int texts = from.get();
        for (int i = 0; i < texts; i++) {
            int length = from.getShort();
            whose = i == 0 && length > 0 ? (char) from.get(from.position()) : whose;
            from.position(from.position() + length);
        }
        if (whose == ' ' || !from.hasRemaining() || signals(from.slice()) != d) {
            return ' ';
        }
        for (int i = 0; i < d; i++) {
            to[at + d + i] = from.getDouble();
            double base = from.getDouble();
            double step = from.getDouble();
            int hours = from.position();
            if (Double.isNaN(step)) {
                to[at + i] = base + from.getFloat(hours + hour * Float.BYTES);
            } else {
                short steps = from.getShort(hours + hour * Short.BYTES);
                to[at + i] = steps == UNKNOWN ? Double.NaN : base + steps * step;
            }
            from.position(hours + size(step));
        }
        return whose;
    }

    private static int signals(ByteBuffer from) {
        int n = 0;
        for (; from.hasRemaining(); n++) {
            from.position(from.position() + 3 * Double.BYTES + size(from.getDouble(from.position() + 2 * Double.BYTES)));
        }
        return n;
    }

    /** Bytes of a signal's hours. */
    private static int size(double step) {
        return HOURS * (Double.isNaN(step) ? Float.BYTES : Short.BYTES);
    }

    static double number(Double x) {
        return x == null ? Double.NaN : x;
    }
}
