package tidewatch.stream;

import org.apache.flink.types.Row;

/** A window of a device, or of one metric of it, that waits for its time to pass. */
public class Window {
    public String view;
    public String deviceId;
    public String metric;
    /** Of each detector that looks at it: use case, name and number of signals, with | between. */
    public String[] detectors;
    public long begin;
    public long end;
    /** Event time, in milliseconds. */
    public long at;
    /** How many windows are handed over, this one and those before it; 1: this one alone. */
    public int lookback;
    /** Of those before it, the ones whose end is a multiple of so many milliseconds. */
    public long everyMs;
    /** NaN: missing. */
    public double[] inputs;

    static Window of(Row row, long at) {
        Window made = new Window();
        made.view = row.getFieldAs("view");
        made.deviceId = row.getFieldAs("device_id");
        made.metric = row.getFieldAs("metric");
        made.detectors = row.getFieldAs("detectors");
        made.begin = row.<Long>getFieldAs("begin_ms");
        made.end = row.<Long>getFieldAs("end_ms");
        made.at = at;
        made.lookback = row.<Integer>getFieldAs("lookback");
        made.everyMs = row.<Long>getFieldAs("every_ms");
        Double[] inputs = row.getFieldAs("inputs");
        made.inputs = new double[inputs.length];
        for (int i = 0; i < inputs.length; i++) {
            made.inputs[i] = Fact.number(inputs[i]);
        }
        return made;
    }

    /** What is seen together: the metrics of one device, in one view. */
    String together() {
        return end + "|" + view + "|" + lookback + "|" + everyMs + "|" + deviceId;
    }

    /** The series that the window continues. */
    String series() {
        return view + "|" + deviceId + "|" + metric + (everyMs > 1 ? "|" + everyMs : "");
    }
}
