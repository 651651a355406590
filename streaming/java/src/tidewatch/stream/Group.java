package tidewatch.stream;

import java.util.Arrays;
import java.util.Objects;

import org.apache.flink.types.Row;

/** Incidents of many devices that began together. */
public class Group {
    static final String EVERYONE = "*";

    public long start;
    /** Start of the incident that began last. */
    public long newest;
    public long windows;
    public long members;
    /** The first members by name, as many as are named. */
    public String[] named;
    /** Of all members, '' if they differ. */
    public String kind;
    public String site;
    /** The member of the highest score, in the state of that moment. */
    public Incident highest;
    public long end;
    /** What suppresses all its open members, or ''. */
    public String suppressedBy;

    static Group of(long start) {
        Group made = new Group();
        made.start = start;
        made.newest = start;
        made.named = new String[0];
        made.suppressedBy = "";
        return made;
    }

    /** Take a member in. */
    void add(Incident member, int mostNamed) {
        newest = Math.max(newest, member.start);
        kind = members == 0 || Objects.equals(kind, member.kind) ? member.kind : "";
        site = members == 0 || Objects.equals(site, member.site) ? member.site : "";
        members++;
        member.group = start;
        if (named.length < mostNamed) {
            named = Arrays.copyOf(named, named.length + 1);
            named[named.length - 1] = member.deviceId;
        }
        see(member);
    }

    /** Take a member's newest state into account. */
    void see(Incident member) {
        end = Math.max(end, member.end);
        if (highest == null || member.score > highest.score) {
            highest = member;
        }
    }

    Row toRow(String status) {
        String where = (kind.isEmpty() ? "" : " of kind " + kind) + (site.isEmpty() ? "" : " at " + site);
        String names = String.join(", ", named) + (members > named.length ? " and " + (members - named.length) + " more" : "");
        String reason = members + " devices" + where + ": " + names + ". The clearest, " + highest.deviceId + ": " + highest.reason;
        return Row.of(
                highest.detector, "", start, end, windows, highest.severity, highest.score, highest.modelVersion, highest.baseline,
                highest.topSignals, highest.topObserved, highest.topExpected, highest.topShares, highest.technique,
                "Many devices at once: " + highest.title, reason, kind, site, suppressedBy, status);
    }
}
