package tidewatch.stream;

import java.time.DayOfWeek;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalTime;
import java.time.ZoneId;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import java.util.regex.Pattern;

import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.table.functions.ScalarFunction;

/**
 * The first of the rules ({@code tidewatch/quiet.py}, as JSON) that keeps a window quiet, or ''.
 *
 * <p>A rule applies if detector, device, kind and site match its patterns ({@code *} any text, {@code ?} any character,
 * {@code ,} between alternatives) and the window overlaps the rule's time: from one moment until another, and of that only the weekly hours if it has such.
 */
public final class SuppressedBy extends ScalarFunction {
    private static final long serialVersionUID = 1L;
    private static final ObjectMapper JSON = new ObjectMapper();
    private transient String read;
    private transient List<Rule> rules;

    public String eval(String detector, String device, String kind, String site, Long startMs, Long endMs, String json) throws Exception {
        if (json == null) {
            return "";
        }
        if (!json.equals(read)) {
            rules = parse(json);
            read = json;
        }
        for (Rule rule : rules) {
            if (rule.matches(detector, device, kind, site) && rule.overlaps(startMs, endMs)) {
                return rule.id;
            }
        }
        return "";
    }

    private static List<Rule> parse(String json) throws Exception {
        List<Rule> found = new ArrayList<>();
        for (JsonNode node : JSON.readTree(json)) {
            found.add(new Rule(node));
        }
        return found;
    }

    private static final class Rule {
        final String id;
        private final Pattern[] patterns;
        private final long from;
        private final long until;
        private final Set<DayOfWeek> days = EnumSet.noneOf(DayOfWeek.class);
        private LocalTime begins;
        private LocalTime ends;
        private ZoneId zone;

        Rule(JsonNode node) {
            id = node.get("rule").asText();
            patterns = new Pattern[] {
                glob(node.get("detector")), glob(node.get("device")), glob(node.get("kind")), glob(node.get("site")),
            };
            from = node.get("from_ms").asLong();
            until = node.get("until_ms").asLong();
            if (node.hasNonNull("begins")) {
                node.get("days").forEach(d -> days.add(DayOfWeek.of(d.asInt())));
                begins = LocalTime.parse(node.get("begins").asText());
                ends = LocalTime.parse(node.get("ends").asText());
                zone = ZoneId.of(node.get("zone").asText());
            }
        }

        private static Pattern glob(JsonNode text) {
            StringBuilder made = new StringBuilder();
            for (char c : text.asText().toCharArray()) {
                made.append(c == '*' ? ".*" : c == '?' ? "." : c == ',' ? "|" : Pattern.quote(String.valueOf(c)));
            }
            return Pattern.compile(made.toString(), Pattern.DOTALL);
        }

        boolean matches(String... texts) {
            for (int i = 0; i < texts.length; i++) {
                if (!patterns[i].matcher(texts[i]).matches()) {
                    return false;
                }
            }
            return true;
        }

        boolean overlaps(long startMs, long endMs) {
            if (startMs >= until || endMs <= from) {
                return false;
            }
            if (begins == null) {
                return true;
            }
            LocalDate last = Instant.ofEpochMilli(endMs).atZone(zone).toLocalDate();
            // hours that pass midnight began on the day before
            for (LocalDate day = Instant.ofEpochMilli(startMs).atZone(zone).toLocalDate().minusDays(1); !day.isAfter(last); day = day.plusDays(1)) {
                LocalDate next = ends.isAfter(begins) ? day : day.plusDays(1);
                if (days.contains(day.getDayOfWeek())
                        && startMs < next.atTime(ends).atZone(zone).toInstant().toEpochMilli()
                        && endMs > day.atTime(begins).atZone(zone).toInstant().toEpochMilli()) {
                    return true;
                }
            }
            return false;
        }
    }
}
