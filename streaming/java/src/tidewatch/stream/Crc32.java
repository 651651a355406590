package tidewatch.stream;

import java.util.zip.CRC32;

import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.functions.ScalarFunction;

/** {@code CRC32(text)}: the CRC-32 of a text's UTF-8, as Spark's function of that name; the bytes are read where they lie. */
public final class Crc32 extends ScalarFunction {
    private static final long serialVersionUID = 1L;

    private transient CRC32 crc;

    public Long eval(@DataTypeHint(value = "STRING", bridgedTo = StringData.class) StringData text) {
        if (text == null) {
            return null;
        }
        if (crc == null) {
            crc = new CRC32();
        }
        crc.reset();
        BinaryStringData binary = (BinaryStringData) text;
        binary.ensureMaterialized();
        if (binary.getSegments().length == 1 && !binary.getSegments()[0].isOffHeap()) {
            crc.update(binary.getSegments()[0].getArray(), binary.getOffset(), binary.getSizeInBytes());
        } else {
            crc.update(binary.toBytes());
        }
        return crc.getValue();
    }
}
