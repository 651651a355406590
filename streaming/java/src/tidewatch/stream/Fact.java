package tidewatch.stream;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/** What is known of a thing (a baseline of an entity, a model of a use case) from a moment on, until a newer fact replaces it. */
public class Fact {
    private static final int HOURS = 24;

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
     * A baseline's numbers in half of their size: of each signal the scale, the center of its first known hour, and what
     * the others differ from that, as floats. A center is off by 2^-24 of that difference at most; one that is the same
     * at all hours is exact.
     *
     * @return empty if the numbers are no baseline: {@code center} has 24 numbers for each of {@code scale}
     */
    static byte[] pack(Double[] center, Double[] scale) {
        if (center == null || scale == null || scale.length == 0 || center.length != HOURS * scale.length) {
            return new byte[0];
        }
        int d = scale.length;
        ByteBuffer to = ByteBuffer.allocate(d * (2 * Double.BYTES + HOURS * Float.BYTES));
        for (int i = 0; i < d; i++) {
            to.putDouble(number(scale[i]));
            double base = Double.NaN;
            for (int hour = 0; hour < HOURS && Double.isNaN(base); hour++) {
                base = number(center[hour * d + i]);
            }
            to.putDouble(base);
            for (int hour = 0; hour < HOURS; hour++) {
                to.putFloat((float) (number(center[hour * d + i]) - base));
            }
        }
        return to.array();
    }

    /** Write the center of an hour and the scale to their places; false, and nothing written, if they are not of d signals. */
    boolean unpack(int hour, int d, double[] center, double[] scale, int at) {
        int size = 2 * Double.BYTES + HOURS * Float.BYTES;
        if (numbers.length != d * size) {
            return false;
        }
        ByteBuffer from = ByteBuffer.wrap(numbers);
        for (int i = 0; i < d; i++) {
            scale[at + i] = from.getDouble(i * size);
            center[at + i] = from.getDouble(i * size + Double.BYTES) + from.getFloat(i * size + 2 * Double.BYTES + hour * Float.BYTES);
        }
        return true;
    }

    static double number(Double x) {
        return x == null ? Double.NaN : x;
    }
}
