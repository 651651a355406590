package tidewatch.stream;

import org.apache.flink.table.functions.AggregateFunction;

/** {@code BIT_OR(x)}: the bits that any row has; null if no row has a value. */
public final class BitOr extends AggregateFunction<Long, BitOr.Bits> {
    private static final long serialVersionUID = 1L;

    /** What is known so far. */
    public static class Bits {
        public long bits;
        public boolean any;
    }

    @Override
    public Bits createAccumulator() {
        return new Bits();
    }

    @Override
    public Long getValue(Bits found) {
        return found.any ? found.bits : null;
    }

    public void accumulate(Bits found, Long x) {
        if (x != null) {
            found.bits |= x;
            found.any = true;
        }
    }

    public void merge(Bits found, Iterable<Bits> others) {
        for (Bits other : others) {
            found.bits |= other.bits;
            found.any |= other.any;
        }
    }
}
