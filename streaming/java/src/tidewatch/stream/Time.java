package tidewatch.stream;

import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.functions.ScalarFunction;

/** Milliseconds since 1970 as a timestamp; TO_TIMESTAMP_LTZ of Flink 2.3 goes by way of an Instant. */
public final class Time extends ScalarFunction {
    private static final long serialVersionUID = 1L;

    @DataTypeHint(value = "TIMESTAMP_LTZ(3)", bridgedTo = TimestampData.class)
    public TimestampData eval(Long millis) {
        return millis == null ? null : TimestampData.fromEpochMillis(millis);
    }
}
