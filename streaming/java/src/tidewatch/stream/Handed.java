package tidewatch.stream;

import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.Stream;

/** How the windows of a view are handed over, and to which detectors; read from what {@code streaming/windows.py} says of it. */
record Handed(String view, int lookback, long everyMs, List<Detector> detectors) {
    private static final Map<String, Handed> READ = new ConcurrentHashMap<>();

    /** A detector that looks at the windows, and how many signals it makes of them. */
    record Detector(String useCase, String name, int signals) {
        static Detector of(String text) {
            String[] parts = text.split("\\|");
            return new Detector(parts[0], parts[1], Integer.parseInt(parts[2]));
        }
    }

    /**
     * {@code view|lookback|every_ms,use_case|detector|signals,...}: how many windows, the newest and those before it; of those before it the
     * ones whose end is a multiple of so many milliseconds.
     */
    static Handed of(String text) {
        return READ.computeIfAbsent(text, Handed::read);
    }

    private static Handed read(String text) {
        String[] parts = text.split(",");
        String[] first = parts[0].split("\\|");
        return new Handed(first[0], Integer.parseInt(first[1]), Long.parseLong(first[2]), Stream.of(parts).skip(1).map(Detector::of).toList());
    }
}
