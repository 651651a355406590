package tidewatch.stream;

import java.nio.charset.StandardCharsets;
import java.util.zip.CRC32;

import org.apache.flink.table.functions.ScalarFunction;

/** The bit of an address's group, of 52 by CRC-32; the same as Spark's {@code SHIFTLEFT(1L, CRC32(address) % 52)}. */
public final class AddressBit extends ScalarFunction {
    private static final long serialVersionUID = 1L;
    private static final int GROUPS = 52;

    private transient CRC32 crc;

    public Long eval(String address) {
        if (address == null) {
            return null;
        }
        if (crc == null) {
            crc = new CRC32();
        }
        crc.reset();
        crc.update(address.getBytes(StandardCharsets.UTF_8));
        return 1L << crc.getValue() % GROUPS;
    }
}
