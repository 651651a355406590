package tidewatch.stream;

import java.nio.charset.StandardCharsets;
import java.util.zip.CRC32;

import org.apache.flink.table.functions.AggregateFunction;

/**
 * {@code ADDRESS_SUMS(address, number)}: the sums of the numbers by group of their address, of 8 by CRC-32; group k is what Spark has
 * of the addresses with {@code CRC32(address) % 8 + 1 = k}. Rows without an address or number count for nothing.
 */
public final class AddressSums extends AggregateFunction<long[], AddressSums.Sums> {
    private static final long serialVersionUID = 1L;
    private static final int GROUPS = 8;

    private transient CRC32 crc;

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

    public void accumulate(Sums found, String address, Long number) {
        if (address == null || number == null) {
            return;
        }
        if (crc == null) {
            crc = new CRC32();
        }
        crc.reset();
        crc.update(address.getBytes(StandardCharsets.UTF_8));
        found.sums[(int) (crc.getValue() % GROUPS)] += number;
    }

    public void merge(Sums found, Iterable<Sums> others) {
        for (Sums other : others) {
            for (int k = 0; k < GROUPS; k++) {
                found.sums[k] += other.sums[k];
            }
        }
    }
}
