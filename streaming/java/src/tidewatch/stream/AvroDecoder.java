package tidewatch.stream;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import org.apache.flink.api.common.serialization.DeserializationSchema;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.types.logical.RowType;

/**
 * Reads one schemaless Avro record into a row, and never fails: a malformed record becomes a row with
 * {@code decode_error} set, its key if that could be read, and nulls elsewhere.
 *
 * <p>Strings stay where they are in the record's bytes; nothing is copied.
 */
public final class AvroDecoder implements DeserializationSchema<RowData> {
    private static final long serialVersionUID = 1L;
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
    private final int width;
    private final int errorPlace;
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

    public AvroDecoder(String fields, List<String> inside, RowType row, TypeInformation<RowData> produced) {
        this.produced = produced;
        List<String> specs = split(fields);
        width = row.getFieldCount();
        Map<String, Integer> column = new HashMap<>();
        for (int i = 0; i < width; i++) {
            column.put(row.getFieldNames().get(i), i);
        }
        int n = specs.size();
        names = new String[n];
        types = new int[n];
        nullable = new boolean[n];
        places = new int[n];
        Map<String, Integer> field = new HashMap<>();
        for (int i = 0; i < n; i++) {
            String[] spec = specs.get(i).split("\\s+");
            nullable[i] = spec[1].endsWith("?");
            names[i] = spec[0];
            types[i] = TYPES.indexOf(spec[1].replace("?", ""));
            if (types[i] < 0) {
                throw new IllegalArgumentException("unknown type in field '" + specs.get(i) + "'");
            }
            places[i] = column.getOrDefault(names[i], -1);
            field.put(names[i], i);
        }
        errorPlace = column.getOrDefault("decode_error", -1);
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
                        requireUtf8(value, cursor.at, size);
                        if (i == directionField) {
                            directionAt = cursor.at;
                        } else if (i == srcField) {
                            srcAt = cursor.at;
                            srcLength = size;
                        } else if (i == dstField) {
                            dstAt = cursor.at;
                            dstLength = size;
                        }
                        if (place >= 0) {
                            row.setField(place, StringData.fromBytes(value, cursor.at, size));
                        }
                        cursor.at += size;
                        break;
                    }
                    case LONG: {
                        long x = readLong(cursor);
                        if (place >= 0) {
                            row.setField(place, x);
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
                        break;
                    }
                    case DOUBLE: {
                        double x = readDouble(cursor);
                        if (place >= 0) {
                            row.setField(place, x);
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
        if (errorPlace >= 0) {
            row.setField(errorPlace, StringData.fromString(error));
        }
        return row;
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

    private static void requireUtf8(byte[] bytes, int from, int length) throws Malformed {
        for (int i = from; i < from + length; i++) {
            if (bytes[i] < 0) {
                try {
                    StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes, from, length));
                    return;
                } catch (CharacterCodingException e) {
                    throw new Malformed("not UTF-8");
                }
            }
        }
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
