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
 * different incidents, and so do a suppressed one and what comes unsuppressed after it. When the gap has passed, the
 * incident is given once more as closed. What describes it (detector, metric, reason, …) is its highest window's.
 * State is one small row a partition with an open incident, cleared with the closing.
 */
@FunctionHint(output = @DataTypeHint("ROW<" + Incident.COLUMNS + ">"))
public final class MergeIncidents extends ProcessTableFunction<Row> {
    private static final long serialVersionUID = 1L;

    public void eval(
            Context context,
            @StateHint Incident incident,
            @ArgumentHint(name = "windows", value = {ArgumentTrait.SET_SEMANTIC_TABLE, ArgumentTrait.REQUIRE_ON_TIME}) Row window,
            @ArgumentHint(name = "gap_ms") Long gapMs) {
        long end = window.<Long>getFieldAs("window_end_ms");
        String suppressedBy = window.getFieldAs("suppressed_by");
        boolean further = end > incident.end;
        if (incident.windows > 0 && (end - incident.end > gapMs || further && incident.isQuiet() && suppressedBy.isEmpty())) {
            close(incident);
        }
        if (incident.windows == 0) {
            incident.start = window.<Long>getFieldAs("window_start_ms");
            incident.score = -1;
            incident.status = Incident.OPEN;
            further = true;
        }
        // several detectors may find the same window anomalous: it is suppressed if all of them are
        if (further) {
            incident.windows++;
            incident.end = end;
            incident.suppressedBy = suppressedBy;
        } else if (suppressedBy.isEmpty()) {
            incident.suppressedBy = suppressedBy;
        }
        if (window.<Double>getFieldAs("score") > incident.score) {
            incident.describe(window);
        }
        context.timeContext(Instant.class).registerOnTime("gap", Instant.ofEpochMilli(incident.end + gapMs + 1));
        collect(incident.toRow());
    }

    public void onTimer(OnTimerContext context, Incident incident) {
        close(incident);
        context.clearAll();
    }

    private void close(Incident incident) {
        incident.status = Incident.CLOSED;
        collect(incident.toRow());
        incident.windows = 0;
    }
}
