package tidewatch.stream;

import org.apache.flink.types.Row;

/** One device's incident in its newest state, as it travels between the functions that merge and group. */
public class Incident {
    /** The columns that describe an incident, in the order of {@link #toRow}. */
    static final String COLUMNS =
            "detector STRING, metric STRING, start_ms BIGINT, end_ms BIGINT, windows BIGINT, severity STRING, score DOUBLE,"
                    + " model_version STRING, baseline STRING, top_signals ARRAY<STRING>, top_observed ARRAY<DOUBLE>,"
                    + " top_expected ARRAY<DOUBLE>, top_shares ARRAY<DOUBLE>, technique STRING, title STRING, reason STRING,"
                    + " kind STRING, site STRING, suppressed_by STRING, status STRING";
    static final String OPEN = "open";
    static final String CLOSED = "closed";

    public String deviceId;
    public String detector;
    public String metric;
    public long start;
    public long end;
    /** 0: there is no incident. */
    public long windows;
    public String severity;
    public double score;
    public String modelVersion;
    public String baseline;
    public String[] topSignals;
    public Double[] topObserved;
    public Double[] topExpected;
    public Double[] topShares;
    public String technique;
    public String title;
    public String reason;
    public String kind;
    public String site;
    public String suppressedBy;
    public String status;
    /** Start of the group that it belongs to; null: none. */
    public Long group;
    /** Event time of this state, in milliseconds. */
    public long at;

    /** An incident's row, as {@link MergeIncidents} gave it. */
    static Incident of(Row row, long at) {
        Incident made = new Incident();
        made.describe(row);
        made.deviceId = row.getFieldAs("device_id");
        made.start = row.<Long>getFieldAs("start_ms");
        made.end = row.<Long>getFieldAs("end_ms");
        made.windows = row.<Long>getFieldAs("windows");
        made.suppressedBy = row.getFieldAs("suppressed_by");
        made.status = row.getFieldAs("status");
        made.at = at;
        return made;
    }

    /** Take over what a window or an incident says of itself. */
    void describe(Row row) {
        score = row.<Double>getFieldAs("score");
        detector = row.getFieldAs("detector");
        metric = row.getFieldAs("metric");
        severity = row.getFieldAs("severity");
        modelVersion = row.getFieldAs("model_version");
        baseline = row.getFieldAs("baseline");
        topSignals = row.getFieldAs("top_signals");
        topObserved = row.getFieldAs("top_observed");
        topExpected = row.getFieldAs("top_expected");
        topShares = row.getFieldAs("top_shares");
        technique = row.getFieldAs("technique");
        title = row.getFieldAs("title");
        reason = row.getFieldAs("reason");
        kind = row.getFieldAs("kind");
        site = row.getFieldAs("site");
    }

    boolean isQuiet() {
        return !suppressedBy.isEmpty();
    }

    Row toRow() {
        return Row.of(
                detector, metric, start, end, windows, severity, score, modelVersion, baseline, topSignals, topObserved,
                topExpected, topShares, technique, title, reason, kind, site, suppressedBy, status);
    }
}
