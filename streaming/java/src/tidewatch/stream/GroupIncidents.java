package tidewatch.stream;

import java.time.Instant;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

import org.apache.flink.table.annotation.ArgumentHint;
import org.apache.flink.table.annotation.ArgumentTrait;
import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.annotation.FunctionHint;
import org.apache.flink.table.annotation.StateHint;
import org.apache.flink.table.api.dataview.ListView;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.functions.ProcessTableFunction;
import org.apache.flink.types.Row;

/**
 * Groups incidents of one partition (use case) in which many devices go wrong at once.
 *
 * <p>When at least so many devices' incidents began within a span of time, they become members of one group, and so does
 * each that begins within that span of the newest member's start. Rows of one moment are looked at together once event
 * time has passed it. Given are every incident's row with its group, members that join anew, and one row a moment for
 * each group with news, under the device {@code *}. Suppressed incidents count towards no group. A group closes with its last member.
 * State is one small row an open incident and group, and the rows of the moment.
 */
@FunctionHint(output = @DataTypeHint(
        "ROW<device_id STRING, group_start_ms BIGINT, members BIGINT, member_ids ARRAY<STRING>, incident ROW<" + Incident.COLUMNS + ">>"))
public final class GroupIncidents extends ProcessTableFunction<Row> {
    private static final long serialVersionUID = 1L;

    /** The call's arguments, for timers do not see them. */
    public static class Rule {
        public int devices;
        public long withinMs;
        public int named;
    }

    public void eval(
            Context context,
            @StateHint Rule rule,
            @StateHint ListView<Incident> waiting,
            @StateHint MapView<String, Incident> open,
            @StateHint MapView<Long, Group> groups,
            @ArgumentHint(name = "incidents", value = {ArgumentTrait.SET_SEMANTIC_TABLE, ArgumentTrait.REQUIRE_ON_TIME}) Row row,
            @ArgumentHint(name = "devices") Integer devices,
            @ArgumentHint(name = "within_ms") Long withinMs,
            @ArgumentHint(name = "named") Integer named) throws Exception {
        rule.devices = devices;
        rule.withinMs = withinMs;
        rule.named = named;
        TimeContext<Instant> time = context.timeContext(Instant.class);
        waiting.add(Incident.of(row, time.time().toEpochMilli()));
        time.registerOnTime(time.time());
    }

    public void onTimer(
            OnTimerContext context, Rule rule, ListView<Incident> waiting, MapView<String, Incident> open, MapView<Long, Group> groups)
            throws Exception {
        List<Incident> rows = due(waiting, context.timeContext(Instant.class).time().toEpochMilli());
        Map<Long, Group> all = new TreeMap<>(Comparator.reverseOrder());
        for (Map.Entry<Long, Group> e : groups.entries()) {
            all.put(e.getKey(), e.getValue());
        }
        Set<Long> news = new LinkedHashSet<>();
        for (Incident row : rows) {
            Incident before = open.get(row.deviceId);
            if (before != null && before.start == row.start && before.group != null) {
                row.group = before.group;
                all.get(row.group).see(row);
                news.add(row.group);
            }
            if (row.status.equals(Incident.CLOSED)) {
                open.remove(row.deviceId);
            } else {
                open.put(row.deviceId, row);
            }
        }
        List<Incident> free = new ArrayList<>();
        for (Incident incident : open.values()) {
            if (incident.group == null && !incident.isQuiet()) {
                free.add(incident);
            }
        }
        free.sort(Comparator.<Incident>comparingLong(i -> i.start).thenComparing(i -> i.deviceId));
        Map<String, Incident> joined = join(rule, free, all, news);
        for (Incident member : joined.values()) {
            open.put(member.deviceId, member);
        }
        Set<String> told = new HashSet<>();
        for (Incident row : rows) {
            Incident now = joined.get(row.deviceId);
            if (now != null && now.start == row.start) {
                row.group = now.group;
                told.add(row.deviceId);
            }
            tell(row);
        }
        for (Incident member : joined.values()) {
            if (!told.contains(member.deviceId)) {
                tell(member);
            }
        }
        for (Long start : news) {
            tell(all.get(start), rows, open, groups);
        }
    }

    /** Take the rows up to a moment out of those that wait, in the order of their time. */
    private static List<Incident> due(ListView<Incident> waiting, long moment) throws Exception {
        List<Incident> due = new ArrayList<>();
        List<Incident> later = new ArrayList<>();
        for (Incident row : waiting.get()) {
            (row.at <= moment ? due : later).add(row);
        }
        waiting.setList(later);
        due.sort(Comparator.<Incident>comparingLong(i -> i.at).thenComparing(i -> i.deviceId));
        return due;
    }

    /** Let incidents without a group, by start, join the newest group that fits, or make a new one; those that joined. */
    private static Map<String, Incident> join(Rule rule, List<Incident> free, Map<Long, Group> all, Set<Long> news) {
        Map<String, Incident> joined = new TreeMap<>();
        for (int i = 0; i < free.size(); i++) {
            Incident first = free.get(i);
            Group group = null;
            for (Group g : all.values()) {
                if (group == null && first.start >= g.start - rule.withinMs && first.start <= g.newest + rule.withinMs) {
                    group = g;
                }
            }
            if (group == null && i + rule.devices <= free.size() && free.get(i + rule.devices - 1).start - first.start <= rule.withinMs) {
                group = Group.of(first.start);
                all.put(group.start, group);
            }
            if (group != null) {
                group.add(first, rule.named);
                joined.put(first.deviceId, first);
                news.add(group.start);
            }
        }
        return joined;
    }

    private void tell(Incident row) {
        collect(Row.of(row.deviceId, row.group, 1L, new String[0], row.toRow()));
    }

    private void tell(Group group, List<Incident> rows, MapView<String, Incident> open, MapView<Long, Group> groups) throws Exception {
        boolean lives = false;
        boolean quiet = true;
        String suppressedBy = "";
        for (Incident member : open.values()) {
            if (member.group != null && member.group == group.start) {
                lives = true;
                quiet &= member.isQuiet();
                suppressedBy = member.suppressedBy;
            }
        }
        if (lives) {
            group.suppressedBy = quiet ? suppressedBy : "";
        }
        if (rows.stream().anyMatch(r -> r.group != null && r.group == group.start && r.status.equals(Incident.OPEN))) {
            group.windows++;
        }
        if (lives) {
            groups.put(group.start, group);
        } else {
            groups.remove(group.start);
        }
        collect(Row.of(
                Group.EVERYONE, group.start, group.members, group.named,
                group.toRow(lives ? Incident.OPEN : Incident.CLOSED)));
    }
}
