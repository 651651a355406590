package tidewatch.stream;

import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.functions.ScalarFunction;

/** A timestamp as milliseconds since 1970, many times cheaper than with EXTRACT. */
public final class Millis extends ScalarFunction {
    private static final long serialVersionUID = 1L;

    public Long eval(@DataTypeHint(value = "TIMESTAMP_LTZ(3)", bridgedTo = TimestampData.class) TimestampData time) {
        return time == null ? null : time.getMillisecond();
    }
}
