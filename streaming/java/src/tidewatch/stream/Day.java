package tidewatch.stream;

import java.time.LocalDate;

import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.functions.ScalarFunction;

/** A timestamp's day (UTC), {@code 2026-12-01}; written anew only when it is another than the last one's. */
public final class Day extends ScalarFunction {
    private static final long serialVersionUID = 1L;
    private static final long DAY = 86_400_000;
    private transient long day;
    private transient StringData text;

    @DataTypeHint(value = "STRING", bridgedTo = StringData.class)
    public StringData eval(@DataTypeHint(value = "TIMESTAMP_LTZ(3)", bridgedTo = TimestampData.class) TimestampData time) {
        if (time == null) {
            return null;
        }
        long now = Math.floorDiv(time.getMillisecond(), DAY);
        if (text == null || now != day) {
            day = now;
            text = StringData.fromString(LocalDate.ofEpochDay(now).toString());
        }
        return text;
    }
}
