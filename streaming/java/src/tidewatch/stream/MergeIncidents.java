package tidewatch.stream;

import java.time.Instant;

import org.apache.flink.table.annotation.ArgumentHint;
import org.apache.flink.table.annotation.ArgumentTrait;
import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.annotation.FunctionHint;
import org.apache.flink.table.annotation.StateHint;
import org.apache.flink.table.functions.ProcessTableFunction;
import org.apache.flink.types.Row;

/**
 * Merges consecutive anomalous windows of one partition (device and use case) into incidents.
 *
 * <p>Each window gives the incident's state so far at once; windows that end further apart than the gap belong to
 * different incidents. What describes the incident (detector, metric, reason, …) is its highest window's. State is one
 * small row a partition with an open incident, cleared by a timer when the gap has passed.
 */
@FunctionHint(output = @DataTypeHint(
        "ROW<detector STRING, metric STRING, start_ms BIGINT, end_ms BIGINT, windows BIGINT, severity STRING, score DOUBLE,"
                + " model_version STRING, baseline STRING, top_signals ARRAY<STRING>, top_observed ARRAY<DOUBLE>,"
                + " top_expected ARRAY<DOUBLE>, top_shares ARRAY<DOUBLE>, technique STRING, title STRING, reason STRING>"))
public final class MergeIncidents extends ProcessTableFunction<Row> {
    private static final long serialVersionUID = 1L;

    /** An open incident; `windows` is 0 when there is none. */
    public static class Incident {
        public long start;
        public long end;
        public long windows;
        public double score;
        public String detector;
        public String metric;
        public String severity;
        public String modelVersion;
        public String baseline;
        public String[] topSignals;
        public Double[] topObserved;
        public Double[] topExpected;
        public Double[] topShares;
        public String technique;
        public String title;
        public String reason;
    }

    public void eval(
            Context context,
            @StateHint Incident incident,
            @ArgumentHint(name = "windows", value = {ArgumentTrait.SET_SEMANTIC_TABLE, ArgumentTrait.REQUIRE_ON_TIME}) Row window,
            @ArgumentHint(name = "gap_ms") Long gapMs) {
        long start = window.<Long>getFieldAs("window_start_ms");
        long end = window.<Long>getFieldAs("window_end_ms");
        double score = window.<Double>getFieldAs("score");
        if (incident.windows == 0 || end - incident.end > gapMs) {
            incident.start = start;
            incident.end = end;
            incident.windows = 0;
            incident.score = -1;
        }
        // several metrics may be anomalous in the same window
        if (incident.windows == 0 || end > incident.end) {
            incident.windows++;
            incident.end = end;
        }
        if (score > incident.score) {
            incident.score = score;
            incident.detector = window.getFieldAs("detector");
            incident.metric = window.getFieldAs("metric");
            incident.severity = window.getFieldAs("severity");
            incident.modelVersion = window.getFieldAs("model_version");
            incident.baseline = window.getFieldAs("baseline");
            incident.topSignals = window.getFieldAs("top_signals");
            incident.topObserved = window.getFieldAs("top_observed");
            incident.topExpected = window.getFieldAs("top_expected");
            incident.topShares = window.getFieldAs("top_shares");
            incident.technique = window.getFieldAs("technique");
            incident.title = window.getFieldAs("title");
            incident.reason = window.getFieldAs("reason");
        }
        context.timeContext(Instant.class).registerOnTime("gap", Instant.ofEpochMilli(incident.end + gapMs + 1));
        collect(Row.of(
                incident.detector, incident.metric, incident.start, incident.end, incident.windows, incident.severity,
                incident.score, incident.modelVersion, incident.baseline, incident.topSignals, incident.topObserved,
                incident.topExpected, incident.topShares, incident.technique, incident.title, incident.reason));
    }

    public void onTimer(OnTimerContext context, Incident incident) {
        context.clearAll();
    }
}
