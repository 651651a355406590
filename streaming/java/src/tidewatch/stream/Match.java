package tidewatch.stream;

/**
 * What a detector gets to score a window of a device; arrays have so many elements a metric, one metric after the other. Those
 * of numbers are bytes, eight a number, the lowest first: Python's workers take them as they are, and element by element they
 * cost more than all else that is handed over.
 */
public class Match {
    public String use_case;
    public String detector;
    public String device_id;
    public long begin_ms;
    public long end_ms;
    public String[] model;
    /** The metrics; one that is empty for a view without. */
    public String[] metric;
    /** Of each metric the ends of the windows, then each input of them, oldest first; NaN where there is none. */
    public byte[] inputs;
    /** Whose baseline it is, null where there is none. */
    public String[] source;
    /** The baseline at the window's hour, a number a signal; NaN where there is none. */
    public byte[] center;
    public byte[] scale;
}
