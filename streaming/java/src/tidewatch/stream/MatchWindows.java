package tidewatch.stream;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.apache.flink.table.annotation.ArgumentHint;
import org.apache.flink.table.annotation.ArgumentTrait;
import org.apache.flink.table.annotation.StateHint;
import org.apache.flink.table.api.dataview.ListView;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.functions.FunctionContext;
import org.apache.flink.table.functions.ProcessTableFunction;
import org.apache.flink.types.Row;

/**
 * Brings together what is needed to score a window: its device's metrics side by side, the windows before, the baseline of
 * each metric and the model, as they held at the window's end.
 *
 * <p>Windows wait until event time has passed them, and so do baselines and models for their own moment. Then each detector
 * gets one row a device and window, unless its use case has no model. State a device: one packed baseline an entity,
 * the last windows of each series in one value ({@link Ring}), and the windows of the moment.
 */
public final class MatchWindows extends ProcessTableFunction<Match> {
    private static final long serialVersionUID = 1L;
    private static final long HOUR = 3_600_000;
    private static final long DAY = 24 * HOUR;
    /** Said, for Flink 2.3 keeps time for each value of a state without it, too, and looks for old ones at each access. */
    private static final String NO_TTL = "0 ms";
    private static final String FORGET = "forget";

    @Override
    public void open(FunctionContext context) {
        QuietCollection.open();
    }

    @Override
    public void close() {
        QuietCollection.close();
    }

    public void eval(
            Context context,
            @StateHint(ttl = NO_TTL) ListView<Window> windows,
            @StateHint(ttl = NO_TTL) ListView<Fact> coming,
            @StateHint(ttl = NO_TTL) MapView<String, byte[]> known,
            @StateHint(ttl = NO_TTL) MapView<String, byte[]> rings,
            @ArgumentHint(name = "windows", value = {ArgumentTrait.SET_SEMANTIC_TABLE, ArgumentTrait.REQUIRE_ON_TIME}) Row window,
            @ArgumentHint(name = "baselines", value = {ArgumentTrait.SET_SEMANTIC_TABLE, ArgumentTrait.REQUIRE_ON_TIME}) Row baseline,
            @ArgumentHint(name = "told", value = {ArgumentTrait.SET_SEMANTIC_TABLE, ArgumentTrait.REQUIRE_ON_TIME}) Row model)
            throws Exception {
        TimeContext<Instant> time = context.timeContext(Instant.class);
        if (window != null) {
            windows.add(Window.of(window, time.time().toEpochMilli()));
            time.registerOnTime(time.time());
            return;
        }
        Row told = baseline != null ? baseline : model;
        String name = told.getFieldAs(baseline != null ? "entity" : "use_case");
        Long validFrom = told.getFieldAs("valid_from");
        if (name == null || validFrom == null) {
            return; // a record that could not be read
        }
        Fact fact = baseline != null
                ? Fact.of(name, validFrom, new String[] {baseline.getFieldAs("source")}, Fact.pack(baseline.getFieldAs("center"), baseline.getFieldAs("scale")))
                : Fact.of(name, validFrom, model.getFieldAs("model"), new byte[0]);
        Instant now = time.currentWatermark();
        if (now != null && fact.validFrom <= now.toEpochMilli()) {
            learn(known, fact);
        } else {
            coming.add(fact);
            time.registerOnTime(Instant.ofEpochMilli(fact.validFrom));
        }
    }

    public void onTimer(
            OnTimerContext context, ListView<Window> windows, ListView<Fact> coming, MapView<String, byte[]> known, MapView<String, byte[]> rings)
            throws Exception {
        TimeContext<Instant> time = context.timeContext(Instant.class);
        long now = time.time().toEpochMilli();
        if (FORGET.equals(context.currentTimer())) {
            forget(rings, now - DAY);
            return;
        }
        List<Fact> ripe = new ArrayList<>();
        List<Fact> later = new ArrayList<>();
        for (Fact fact : coming.get()) {
            (fact.validFrom <= now ? ripe : later).add(fact);
        }
        if (!ripe.isEmpty()) {
            coming.setList(later);
            for (Fact fact : ripe) {
                learn(known, fact);
            }
        }
        List<Window> due = new ArrayList<>();
        List<Window> waiting = new ArrayList<>();
        for (Window window : windows.get()) {
            (window.at <= now ? due : waiting).add(window);
        }
        if (due.isEmpty()) {
            return;
        }
        QuietCollection.windowsClosed();
        windows.setList(waiting);
        time.registerOnTime(FORGET, Instant.ofEpochMilli((Math.floorDiv(now, DAY) + 1) * DAY));
        due.sort(Comparator.<Window>comparingLong(w -> w.end).thenComparing(w -> w.metric));
        Map<Window.Together, List<Window>> together = new LinkedHashMap<>();
        for (Window window : due) {
            together.computeIfAbsent(window.together(), key -> new ArrayList<>()).add(window);
        }
        Map<Handed.Detector, String> asked = new HashMap<>();
        for (List<Window> metrics : together.values()) {
            byte[] inputs = bytes(seen(metrics, rings));
            for (Handed.Detector detector : metrics.get(0).how().detectors()) {
                if (!asked.containsKey(detector)) {
                    asked.put(detector, asked(detector, known));
                }
                if (asked.get(detector) != null) {
                    tell(metrics, detector, asked.get(detector), inputs, known);
                }
            }
        }
    }

    /** What {@link Match#asked} says for a detector; null as long as its use case has no model. */
    private static String asked(Handed.Detector detector, MapView<String, byte[]> known) throws Exception {
        Fact model = held(known, detector.useCase());
        if (model == null) {
            return null;
        }
        StringBuilder made = new StringBuilder(detector.useCase()).append('\n').append(detector.name());
        for (String text : model.texts) {
            made.append('\n').append(text.replace('\n', ' '));
        }
        return made.toString();
    }

    /** Forget series whose newest window ended before a moment. */
    private static void forget(MapView<String, byte[]> rings, long before) throws Exception {
        List<String> old = new ArrayList<>();
        for (Map.Entry<String, byte[]> e : rings.entries()) {
            if (Ring.newest(e.getValue()) < before) {
                old.add(e.getKey());
            }
        }
        for (String series : old) {
            rings.remove(series);
        }
    }

    private static void learn(MapView<String, byte[]> known, Fact fact) throws Exception {
        Fact before = held(known, fact.name);
        if (before == null || before.validFrom <= fact.validFrom) {
            known.put(fact.name, fact.toBytes());
        }
    }

    private static Fact held(MapView<String, byte[]> known, String name) throws Exception {
        byte[] bytes = known.get(name);
        return bytes == null ? null : Fact.ofBytes(name, bytes);
    }

    /** Of each metric: the ends of its windows, then each input of them; NaN where there is none. */
    private static double[] seen(List<Window> metrics, MapView<String, byte[]> rings) throws Exception {
        Handed how = metrics.get(0).how();
        int inputs = metrics.get(0).inputs.length;
        int size = (1 + inputs) * how.lookback();
        double[] found = new double[metrics.size() * size];
        Arrays.fill(found, Double.NaN);
        for (int i = 0; i < metrics.size(); i++) {
            Window window = metrics.get(i);
            byte[] ring = null;
            if (how.lookback() > 1) {
                String series = window.series(how);
                ring = Ring.add(rings.get(series), window, how);
                rings.put(series, ring);
            } else {
                ring = Ring.add(null, window, how);
            }
            Ring.read(ring, inputs, how.lookback(), found, i * size);
        }
        return found;
    }

    private void tell(List<Window> metrics, Handed.Detector detector, String asked, byte[] inputs, MapView<String, byte[]> known) throws Exception {
        Window first = metrics.get(0);
        int n = metrics.size();
        int signals = detector.signals();
        Match match = new Match();
        match.use_case = detector.useCase();
        match.detector = detector.name();
        match.device_id = first.deviceId;
        match.begin_ms = first.begin;
        match.end_ms = first.end;
        match.asked = asked;
        match.metric = new String[n];
        match.inputs = inputs;
        StringBuilder source = new StringBuilder();
        double[] numbers = new double[2 * n * signals];
        Arrays.fill(numbers, Double.NaN);
        int hour = (int) Math.floorMod(Math.floorDiv(first.end, HOUR), 24L);
        for (int i = 0; i < n; i++) {
            match.metric[i] = metrics.get(i).metric;
            byte[] baseline = known.get(detector.name() + "|" + first.deviceId + "|" + match.metric[i]);
            source.append(baseline == null ? ' ' : Fact.unpack(baseline, hour, signals, numbers, 2 * i * signals));
        }
        match.source = source.toString();
        match.baseline = bytes(numbers);
        collect(match);
    }

    private static byte[] bytes(double[] numbers) {
        byte[] made = new byte[numbers.length * Double.BYTES];
        ByteBuffer.wrap(made).order(ByteOrder.LITTLE_ENDIAN).asDoubleBuffer().put(numbers);
        return made;
    }
}
