package tidewatch.stream;

import org.apache.flink.types.Row;

/** A window of a device, or of one metric of it, that waits for its time to pass. */
public class Window {
    /** What {@link Handed#of} reads. */
    public String handed;
    public String deviceId;
    public String metric;
    public long begin;
    public long end;
    /** Event time, in milliseconds. */
    public long at;
    /** NaN: missing. */
    public double[] inputs;

    static Window of(Row row, long at) {
        Window made = new Window();
        made.handed = row.getFieldAs("handed");
        made.deviceId = row.getFieldAs("device_id");
        made.metric = row.getFieldAs("metric");
        made.begin = row.<Long>getFieldAs("begin_ms");
        made.end = row.<Long>getFieldAs("end_ms");
        made.at = at;
        Double[] inputs = row.getFieldAs("inputs");
        made.inputs = new double[inputs.length];
        for (int i = 0; i < inputs.length; i++) {
            made.inputs[i] = Fact.number(inputs[i]);
        }
        return made;
    }

    Handed how() {
        return Handed.of(handed);
    }

    /** The series that the window continues. */
    String series(Handed how) {
        return how.view() + "|" + deviceId + "|" + metric + (how.everyMs() > 1 ? "|" + how.everyMs() : "");
    }

    /** What is seen together: the metrics of one device, in one view. */
    Together together() {
        return new Together(end, handed, deviceId);
    }

    record Together(long end, String handed, String deviceId) {}
}
