package tidewatch.stream;

/**
 * What a detector gets to score a window of a device. What Python's workers read of it is texts and bytes, for each array and each
 * column more costs them time (docs/measured.md). Numbers are doubles of eight bytes, the lowest first.
 */
public class Match {
    public String use_case;
    public String detector;
    public String device_id;
    public long begin_ms;
    public long end_ms;
    /** A line each: use case, detector, the model's version and address, and its shadow's, empty where there is none. */
    public String asked;
    /** The metrics; one that is empty for a view without. */
    public String[] metric;
    /** Of each metric the ends of the windows, then each input of them, oldest first; NaN where there is none. */
    public byte[] inputs;
    /** Whose baseline each metric has, its first letter (device, kind); a blank where there is none. */
    public String source;
    /** Of each metric the center at the window's hour, then the scale, a number a signal; NaN where there is none. */
    public byte[] baseline;
}
