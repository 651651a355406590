package tidewatch.pinot;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.Collection;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Set;

import org.apache.avro.Schema;
import org.apache.pinot.spi.data.readers.GenericRow;
import org.apache.pinot.spi.stream.StreamMessageDecoder;

import tidewatch.events.Networks;

/**
 * Reads one schemaless Avro record of an event contract into a Pinot row, and skips what the contract calls malformed
 * or impossible: those events are in the dead letters, told by the stream with the same rules.
 *
 * <p>Pinot's own SimpleAvroMessageDecoder lets Avro's runtime exceptions through, and one malformed record then stops
 * its partition for good; it also accepts trailing bytes. Skipping is by an empty list of records: no row, no error.
 *
 * <p>A device's own duplicate (same key and {@code event_id}) is skipped too, within a segment: Pinot makes a decoder for
 * each segment it fills, and begins both anew when it has to read them again. Pinot's own deduplication keeps some 100
 * bytes of heap a row for as long as the row lives, at 81,000 events a second that is 700 GB a day.
 *
 * <p>Properties: {@code schema} (the contract's Avro schema with min, max, values, min_length, max_length, role),
 * {@code max.future.ms} and {@code max.past.ms} (event time against this machine's clock: Pinot 0.11 does not hand the
 * record's own time to a decoder), {@code inside} (networks, comma separated): of a contract with {@code src_ip},
 * {@code dst_ip} and {@code direction} the row's {@code external} says whether the other end is in none of them.
 */
public final class ContractDecoder implements StreamMessageDecoder<byte[]> {
    private static final Object NOTHING = Collections.emptyList();

    private static final class Field {
        String name;
        Schema.Type type;
        boolean nullable;
        boolean wanted;
        boolean time;
        boolean key;
        boolean id;
        boolean source;
        boolean destination;
        boolean direction;
        double min = Double.NEGATIVE_INFINITY;
        double max = Double.POSITIVE_INFINITY;
        int minLength;
        int maxLength = Integer.MAX_VALUE;
        Collection<?> values;
    }

    /** Told without a stack trace: there may be many. */
    private static final class Refused extends Exception {
        private static final long serialVersionUID = 1L;
        static final Refused INSTANCE = new Refused();

        private Refused() {
            super("", null, false, false);
        }
    }

    private Field[] fields;
    private long maxFuture;
    private long maxPast;
    /** Null: the contract has no addresses. */
    private Networks inside;
    private int textAt;
    private int textLength;
    private int at;
    private int end;
    /** Fingerprints of the segment's rows, by open addressing; 0 is free. */
    private long[] seen = new long[1 << 12];
    private int seenCount;

    @Override
    public void init(Map<String, String> properties, Set<String> fieldsToRead, String topic) {
        Schema schema = new Schema.Parser().parse(properties.get("schema"));
        maxFuture = Long.parseLong(properties.get("max.future.ms"));
        maxPast = Long.parseLong(properties.get("max.past.ms"));
        fields = new Field[schema.getFields().size()];
        for (Schema.Field declared : schema.getFields()) {
            Field f = new Field();
            f.name = declared.name();
            Schema type = declared.schema();
            if (type.getType() == Schema.Type.UNION) {
                f.nullable = true;
                if (type.getTypes().size() != 2 || type.getTypes().get(0).getType() != Schema.Type.NULL) {
                    throw new IllegalArgumentException(f.name + ": a union must be null and one type");
                }
                type = type.getTypes().get(1);
            }
            f.type = type.getType();
            f.wanted = fieldsToRead == null || fieldsToRead.isEmpty() || fieldsToRead.contains(f.name);
            f.time = "time".equals(declared.getObjectProp("role"));
            f.key = "key".equals(declared.getObjectProp("role"));
            f.id = f.name.equals("event_id");
            f.source = f.name.equals("src_ip");
            f.destination = f.name.equals("dst_ip");
            f.direction = f.name.equals("direction");
            f.min = number(declared, "min", f.min);
            f.max = number(declared, "max", f.max);
            f.minLength = (int) number(declared, "min_length", f.minLength);
            f.maxLength = (int) number(declared, "max_length", f.maxLength);
            Object values = declared.getObjectProp("values");
            f.values = values == null ? null : List.copyOf((Collection<?>) values);
            fields[declared.pos()] = f;
        }
        boolean addressed = schema.getField("src_ip") != null && schema.getField("dst_ip") != null && schema.getField("direction") != null;
        String networks = properties.getOrDefault("inside", "");
        inside = addressed && !networks.isEmpty() ? new Networks(List.of(networks.split(","))) : null;
    }

    private static double number(Schema.Field field, String name, double otherwise) {
        Object value = field.getObjectProp(name);
        return value == null ? otherwise : ((Number) value).doubleValue();
    }

    @Override
    public GenericRow decode(byte[] payload, GenericRow row) {
        return decode(payload, 0, payload.length, row);
    }

    @Override
    public GenericRow decode(byte[] payload, int offset, int length, GenericRow row) {
        at = offset;
        end = offset + length;
        long fingerprint = 0xcbf29ce484222325L;
        int sourceAt = 0;
        int sourceLength = 0;
        int destinationAt = 0;
        int destinationLength = 0;
        boolean in = false;
        try {
            for (Field f : fields) {
                int from = at;
                textLength = 0;
                Object value = read(payload, f);
                if (f.key || f.id) {
                    // FNV-1a over the encoded field, its length included
                    for (int i = from; i < at; i++) {
                        fingerprint = (fingerprint ^ payload[i] & 0xff) * 0x100000001b3L;
                    }
                }
                if (f.source) {
                    sourceAt = textAt;
                    sourceLength = textLength;
                } else if (f.destination) {
                    destinationAt = textAt;
                    destinationLength = textLength;
                } else if (f.direction) {
                    in = "in".equals(value);
                }
                if (f.wanted) {
                    row.putValue(f.name, value);
                }
            }
            if (inside != null) {
                row.putValue("external", inside.isOutside(payload, in ? sourceAt : destinationAt, in ? sourceLength : destinationLength));
            }
            if (at == end && isNew(fingerprint)) {
                return row;
            }
        } catch (Refused e) {
            // below
        }
        row.clear();
        row.putValue(GenericRow.MULTIPLE_RECORDS_KEY, NOTHING);
        return row;
    }

    /** Whether the segment has no row of this fingerprint yet; remembers it. Of n rows one is wrongly skipped with a chance of n / 2^64. */
    private boolean isNew(long fingerprint) {
        // FNV's low bits are weak
        long x = fingerprint ^ fingerprint >>> 32;
        x *= 0xd6e8feb86659fd93L;
        x ^= x >>> 32;
        x = x == 0 ? 1 : x;
        if (!insert(seen, x)) {
            return false;
        }
        if (++seenCount > seen.length / 2) {
            long[] wider = new long[seen.length * 2];
            for (long old : seen) {
                if (old != 0) {
                    insert(wider, old);
                }
            }
            seen = wider;
        }
        return true;
    }

    private static boolean insert(long[] table, long x) {
        int mask = table.length - 1;
        for (int i = (int) x & mask;; i = i + 1 & mask) {
            if (table[i] == 0) {
                table[i] = x;
                return true;
            }
            if (table[i] == x) {
                return false;
            }
        }
    }

    private Object read(byte[] bytes, Field f) throws Refused {
        if (f.nullable) {
            long branch = readLong(bytes);
            if (branch == 0) {
                return null;
            }
            require(branch == 1);
        }
        switch (f.type) {
            case STRING: {
                long size = readLong(bytes);
                require(size >= 0 && size <= end - at);
                String text = text(bytes, (int) size);
                textAt = at;
                textLength = (int) size;
                at += (int) size;
                int length = size <= f.maxLength && size / 4 >= f.minLength ? f.minLength : text.codePointCount(0, text.length());
                require(length >= f.minLength && length <= f.maxLength && (f.values == null || f.values.contains(text)));
                return text;
            }
            case LONG: {
                long x = readLong(bytes);
                require(x >= f.min && x <= f.max);
                if (f.time) {
                    long now = System.currentTimeMillis();
                    require(x <= now + maxFuture && x >= now - maxPast);
                }
                return x;
            }
            case INT: {
                long x = readLong(bytes);
                require(x == (int) x && x >= f.min && x <= f.max);
                return (int) x;
            }
            case DOUBLE: {
                require(end - at >= 8);
                long bits = 0;
                for (int k = 7; k >= 0; k--) {
                    bits = bits << 8 | bytes[at + k] & 0xffL;
                }
                at += 8;
                double x = Double.longBitsToDouble(bits);
                require(!Double.isNaN(x) && !Double.isInfinite(x) && x >= f.min && x <= f.max);
                return x;
            }
            case BOOLEAN: {
                require(at < end);
                byte b = bytes[at++];
                require(b == 0 || b == 1);
                return b == 1;
            }
            default:
                throw new IllegalStateException(f.name + ": type " + f.type);
        }
    }

    private long readLong(byte[] bytes) throws Refused {
        long x = 0;
        for (int shift = 0; shift < 70; shift += 7) {
            require(at < end);
            byte b = bytes[at++];
            require(shift != 63 || (b & 0xfe) == 0);
            x |= (b & 0x7fL) << shift;
            if (b >= 0) {
                return (x >>> 1) ^ -(x & 1);
            }
        }
        throw Refused.INSTANCE;
    }

    private String text(byte[] bytes, int size) throws Refused {
        for (int i = at; i < at + size; i++) {
            if (bytes[i] < 0) {
                try {
                    return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes, at, size)).toString();
                } catch (CharacterCodingException e) {
                    throw Refused.INSTANCE;
                }
            }
        }
        return new String(bytes, at, size, StandardCharsets.ISO_8859_1);
    }

    private static void require(boolean holds) throws Refused {
        if (!holds) {
            throw Refused.INSTANCE;
        }
    }
}
