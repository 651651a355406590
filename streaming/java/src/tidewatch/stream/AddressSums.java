package tidewatch.stream;

import org.apache.flink.table.functions.AggregateFunction;

/**
 * {@code ADDRESS_SUMS(crc, number)}: the sums of the numbers by group, of 8, of an address with this CRC-32; group k has those
 * with {@code crc % 8 + 1 = k}. Rows without a CRC or number count for nothing.
 */
public final class AddressSums extends AggregateFunction<long[], AddressSums.Sums> {
    private static final long serialVersionUID = 1L;
    private static final int GROUPS = 8;

    /** What is known so far. */
    public static class Sums {
        public long[] sums = new long[GROUPS];
    }

    @Override
    public Sums createAccumulator() {
        return new Sums();
    }

    @Override
    public long[] getValue(Sums found) {
        return found.sums;
    }

    public void accumulate(Sums found, Long crc, Long number) {
        if (crc != null && number != null) {
            found.sums[(int) (crc % GROUPS)] += number;
        }
    }

    public void merge(Sums found, Iterable<Sums> others) {
        for (Sums other : others) {
            for (int k = 0; k < GROUPS; k++) {
                found.sums[k] += other.sums[k];
            }
        }
    }
}
