package tidewatch.stream;

import org.apache.flink.table.functions.ScalarFunction;

/** {@code ADDRESS_BIT(crc)}: the bit of the group, of 52, of an address with this CRC-32. */
public final class AddressBit extends ScalarFunction {
    private static final long serialVersionUID = 1L;
    private static final int GROUPS = 52;

    public Long eval(Long crc) {
        return crc == null ? null : 1L << crc % GROUPS;
    }
}
