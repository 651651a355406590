package tidewatch.stream;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import org.apache.flink.api.common.serialization.DeserializationSchema;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.core.memory.MemorySegmentFactory;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonProcessingException;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.types.logical.RowType;

import tidewatch.events.Networks;

/**
 * Reads one schemaless Avro record into a row, and never fails: a record that cannot be used becomes a row with
 * {@code fault} (the reason: {@code malformed}, or the field and the rule it breaks, as in {@code bytes_out_range}) and
 * {@code detail} set. A malformed one keeps its key if that could be read, and nulls elsewhere. Rules that need another
 * time than the record's own are not looked at.
 *
 * <p>Strings stay where they are in the record's bytes; nothing is copied.
 */
public final class AvroDecoder implements DeserializationSchema<RowData> {
    private static final long serialVersionUID = 2L;
    private static final int STRING = 0;
    private static final int LONG = 1;
    private static final int INT = 2;
    private static final int DOUBLE = 3;
    private static final int BOOLEAN = 4;
    private static final List<String> TYPES = List.of("string", "long", "int", "double", "boolean");

    private final String[] names;
    private final int[] types;
    private final boolean[] nullable;
    /** Where each field goes in the row; -1: nowhere. */
    private final int[] places;
    /** The contract's limits; of a text, its length in characters. */
    private final long[] least;
    private final long[] most;
    private final double[] leastDouble;
    private final double[] mostDouble;
    /** The texts that a field may have; null: any. */
    private final byte[][][] values;
    private final int width;
    private final int faultPlace;
    private final int detailPlace;
    private final int originalPlace;
    private final int externalPlace;
    private final int directionField;
    private final int srcField;
    private final int dstField;
    private final Networks inside;
    private final TypeInformation<RowData> produced;

    /** A reason why the record cannot be read; without a stack trace, for there may be many. */
    private static final class Malformed extends Exception {
        private static final long serialVersionUID = 1L;

        Malformed(String message) {
            super(message, null, false, false);
        }
    }

    /** The position in one record. */
    private static final class Cursor {
        final byte[] bytes;
        int at;

        Cursor(byte[] bytes) {
            this.bytes = bytes;
        }
    }

    public AvroDecoder(String schema, List<String> inside, RowType row, TypeInformation<RowData> produced) {
        this.produced = produced;
        JsonNode fields;
        try {
            fields = new ObjectMapper().readTree(schema).get("fields");
        } catch (JsonProcessingException e) {
            throw new IllegalArgumentException("the schema is no JSON: " + e.getMessage());
        }
        width = row.getFieldCount();
        Map<String, Integer> column = new HashMap<>();
        for (int i = 0; i < width; i++) {
            column.put(row.getFieldNames().get(i), i);
        }
        int n = fields.size();
        names = new String[n];
        types = new int[n];
        nullable = new boolean[n];
        places = new int[n];
        least = new long[n];
        most = new long[n];
        leastDouble = new double[n];
        mostDouble = new double[n];
        values = new byte[n][][];
        Map<String, Integer> field = new HashMap<>();
        for (int i = 0; i < n; i++) {
            JsonNode declared = fields.get(i);
            JsonNode type = declared.get("type");
            names[i] = declared.get("name").asText();
            if (type.isArray()) {
                if (type.size() != 2 || !type.get(0).asText().equals("null")) {
                    throw new IllegalArgumentException(names[i] + ": a union must be [\"null\", type]");
                }
                nullable[i] = true;
                type = type.get(1);
            }
            types[i] = TYPES.indexOf(type.isObject() ? type.get("type").asText() : type.asText());
            if (types[i] < 0) {
                throw new IllegalArgumentException(names[i] + ": unknown type " + type);
            }
            boolean text = types[i] == STRING;
            JsonNode low = declared.get(text ? "min_length" : "min");
            JsonNode high = declared.get(text ? "max_length" : "max");
            least[i] = low == null ? Long.MIN_VALUE : low.asLong();
            most[i] = high == null ? Long.MAX_VALUE : high.asLong();
            leastDouble[i] = low == null ? Double.NEGATIVE_INFINITY : low.asDouble();
            mostDouble[i] = high == null ? Double.POSITIVE_INFINITY : high.asDouble();
            JsonNode allowed = declared.get("values");
            if (allowed != null) {
                values[i] = new byte[allowed.size()][];
                for (int k = 0; k < allowed.size(); k++) {
                    values[i][k] = allowed.get(k).asText().getBytes(StandardCharsets.UTF_8);
                }
            }
            places[i] = column.getOrDefault(names[i], -1);
            field.put(names[i], i);
        }
        faultPlace = column.getOrDefault("fault", -1);
        detailPlace = column.getOrDefault("detail", -1);
        originalPlace = column.getOrDefault("original", -1);
        boolean addressed = !inside.isEmpty() && field.containsKey("src_ip") && field.containsKey("dst_ip");
        externalPlace = addressed ? column.getOrDefault("external", -1) : -1;
        directionField = field.getOrDefault("direction", -1);
        srcField = addressed ? field.get("src_ip") : -1;
        dstField = addressed ? field.get("dst_ip") : -1;
        this.inside = new Networks(inside);
    }

    static List<String> split(String list) {
        List<String> parts = new ArrayList<>();
        for (String p : list.split(",")) {
            if (!p.isBlank()) {
                parts.add(p.strip());
            }
        }
        return parts;
    }

    @Override
    public RowData deserialize(byte[] value) {
        GenericRowData row = new GenericRowData(width);
        if (originalPlace >= 0) {
            row.setField(originalPlace, value == null ? new byte[0] : value);
        }
        if (value == null) {
            return failed(row, "the record has no value");
        }
        Cursor cursor = new Cursor(value);
        MemorySegment[] segments = {MemorySegmentFactory.wrap(value)};
        // the first rule that is broken, by whom and with what
        String fault = null;
        Object culprit = null;
        int culpritField = 0;
        int i = 0;
        try {
            // offsets and lengths of the texts that `external` looks at
            int directionAt = 0;
            int srcAt = 0;
            int srcLength = 0;
            int dstAt = 0;
            int dstLength = 0;
            for (; i < types.length; i++) {
                if (nullable[i]) {
                    long branch = readLong(cursor);
                    if (branch == 0) {
                        continue;
                    }
                    if (branch != 1) {
                        throw new Malformed("union branch " + branch);
                    }
                }
                int place = places[i];
                switch (types[i]) {
                    case STRING: {
                        long length = readLong(cursor);
                        if (length < 0 || length > value.length - cursor.at) {
                            throw new Malformed("a text of " + length + " bytes, " + (value.length - cursor.at) + " are left");
                        }
                        int size = (int) length;
                        int characters = characters(value, cursor.at, size);
                        if (i == directionField) {
                            directionAt = cursor.at;
                        } else if (i == srcField) {
                            srcAt = cursor.at;
                            srcLength = size;
                        } else if (i == dstField) {
                            dstAt = cursor.at;
                            dstLength = size;
                        }
                        BinaryStringData text = null;
                        if (place >= 0) {
                            text = new BinaryStringData(segments, cursor.at, size);
                            row.setField(place, text);
                        }
                        if (fault == null) {
                            if (characters < least[i] || characters > most[i]) {
                                fault = "_length";
                            } else if (values[i] != null && !isOneOf(values[i], value, cursor.at, size)) {
                                fault = "_values";
                            }
                            if (fault != null) {
                                culprit = text;
                                culpritField = i;
                            }
                        }
                        cursor.at += size;
                        break;
                    }
                    case LONG: {
                        long x = readLong(cursor);
                        if (place >= 0) {
                            row.setField(place, x);
                        }
                        if (fault == null && (x < least[i] || x > most[i])) {
                            fault = "_range";
                            culprit = x;
                            culpritField = i;
                        }
                        break;
                    }
                    case INT: {
                        long x = readLong(cursor);
                        if (x != (int) x) {
                            throw new Malformed(x + " is no int");
                        }
                        if (place >= 0) {
                            row.setField(place, (int) x);
                        }
                        if (fault == null && (x < least[i] || x > most[i])) {
                            fault = "_range";
                            culprit = x;
                            culpritField = i;
                        }
                        break;
                    }
                    case DOUBLE: {
                        double x = readDouble(cursor);
                        if (place >= 0) {
                            row.setField(place, x);
                        }
                        if (fault == null && (x < leastDouble[i] || x > mostDouble[i])) {
                            fault = "_range";
                            culprit = x;
                            culpritField = i;
                        }
                        break;
                    }
                    default: {
                        if (cursor.at >= value.length) {
                            throw new Malformed("the record ends early");
                        }
                        byte b = value[cursor.at++];
                        if (b != 0 && b != 1) {
                            throw new Malformed("a boolean of " + b);
                        }
                        if (place >= 0) {
                            row.setField(place, b == 1);
                        }
                    }
                }
            }
            if (cursor.at != value.length) {
                return failed(row, (value.length - cursor.at) + " bytes after the last field");
            }
            if (externalPlace >= 0) {
                boolean in = directionField >= 0 && value[directionAt] == 'i';
                row.setField(externalPlace, in ? inside.isOutside(value, srcAt, srcLength) : inside.isOutside(value, dstAt, dstLength));
            }
            if (fault != null) {
                told(row, names[culpritField] + fault, names[culpritField] + " is " + culprit);
            }
            return row;
        } catch (Malformed e) {
            return failed(row, names[i] + ": " + e.getMessage() + " (byte " + cursor.at + " of " + value.length + ")");
        }
    }

    /** The row of a malformed record: what was read so far is dropped, but the first field (the key). */
    private GenericRowData failed(GenericRowData row, String error) {
        for (int i = 1; i < places.length; i++) {
            if (places[i] >= 0) {
                row.setField(places[i], null);
            }
        }
        told(row, "malformed", error);
        return row;
    }

    private void told(GenericRowData row, String fault, String detail) {
        if (faultPlace >= 0) {
            row.setField(faultPlace, StringData.fromString(fault));
        }
        if (detailPlace >= 0) {
            row.setField(detailPlace, StringData.fromString(detail));
        }
    }

    private static boolean isOneOf(byte[][] values, byte[] bytes, int from, int length) {
        for (byte[] v : values) {
            if (v.length == length && Arrays.equals(v, 0, length, bytes, from, from + length)) {
                return true;
            }
        }
        return false;
    }

    private static long readLong(Cursor c) throws Malformed {
        long x = 0;
        for (int shift = 0; shift < 70; shift += 7) {
            if (c.at >= c.bytes.length) {
                throw new Malformed("the record ends early");
            }
            byte b = c.bytes[c.at++];
            if (shift == 63 && (b & 0xfe) != 0) {
                break;
            }
            x |= (b & 0x7fL) << shift;
            if (b >= 0) {
                return (x >>> 1) ^ -(x & 1);
            }
        }
        throw new Malformed("a number longer than 64 bits");
    }

    private static double readDouble(Cursor c) throws Malformed {
        if (c.bytes.length - c.at < 8) {
            throw new Malformed("the record ends early");
        }
        long bits = 0;
        for (int k = 7; k >= 0; k--) {
            bits = bits << 8 | c.bytes[c.at + k] & 0xffL;
        }
        c.at += 8;
        double x = Double.longBitsToDouble(bits);
        if (Double.isNaN(x) || Double.isInfinite(x)) {
            throw new Malformed("not a finite number");
        }
        return x;
    }

    /** The number of characters (code points) of a text. */
    private static int characters(byte[] bytes, int from, int length) throws Malformed {
        for (int i = from; i < from + length; i++) {
            if (bytes[i] < 0) {
                try {
                    String text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes, from, length)).toString();
                    return text.codePointCount(0, text.length());
                } catch (CharacterCodingException e) {
                    throw new Malformed("not UTF-8");
                }
            }
        }
        return length;
    }

    @Override
    public boolean isEndOfStream(RowData row) {
        return false;
    }

    @Override
    public TypeInformation<RowData> getProducedType() {
        return produced;
    }
}
