package tidewatch.pinot;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;

import org.apache.pinot.spi.data.readers.GenericRow;
import org.apache.pinot.spi.stream.StreamMessageDecoder;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Reads one JSON record of a topic into a Pinot row: the fields that the table has, and elements of arrays that are columns of their own.
 *
 * <p>Pinot's own JSONMessageDecoder makes a tree of the whole record, a map of the tree and arrays of its lists, from which a
 * {@code jsonPath} a column then takes one element: of {@code scores} a row costs more than twice as much so (docs/measured.md). It also leaves
 * nulls out of an array before elements are counted, so that a signal's value stood in the column of the one before; here a null has its place.
 *
 * <p>What is no JSON object, or has an object or an array of arrays in a field that the table has, is told in the log and skipped: Pinot counts
 * it among its invalid rows and goes on.
 *
 * <p>Property: {@code elements}, as in {@code first_signal=top_signals[0],observed_4=signals[3]}. An element that is not there is null.
 */
public final class JsonDecoder implements StreamMessageDecoder<byte[]> {
    private static final Logger LOG = LoggerFactory.getLogger(JsonDecoder.class);
    private static final JsonFactory JSON = new JsonFactory();

    private static final class Field {
        final String name;
        /** A column of the table itself, not only the origin of others. */
        boolean wanted;
        /** The column of each element; null: none. */
        final List<String> elements = new ArrayList<>();

        Field(String name) {
            this.name = name;
        }
    }

    /** By name in the record. */
    private final Map<String, Field> fields = new HashMap<>();
    private String topic;
    private final List<Object> values = new ArrayList<>();

    @Override
    public void init(Map<String, String> properties, Set<String> columns, String topicName) {
        topic = topicName;
        for (String element : properties.getOrDefault("elements", "").split(",")) {
            if (element.isEmpty()) {
                continue;
            }
            String[] parts = element.split("[=\\[\\]]");
            if (parts.length != 3 || !element.equals(parts[0] + "=" + parts[1] + "[" + parts[2] + "]")) {
                throw new IllegalArgumentException("elements: '" + element + "' is not as 'column=array[0]'");
            }
            if (columns.contains(parts[0])) {
                List<String> of = fields.computeIfAbsent(parts[1], Field::new).elements;
                int index = Integer.parseInt(parts[2]);
                while (of.size() <= index) {
                    of.add(null);
                }
                if (of.set(index, parts[0]) != null) {
                    throw new IllegalArgumentException("elements: two columns of " + parts[1] + "[" + index + "]");
                }
            }
        }
        for (String name : columns) {
            fields.computeIfAbsent(name, Field::new).wanted = true;
        }
    }

    @Override
    public GenericRow decode(byte[] payload, GenericRow row) {
        return decode(payload, 0, payload.length, row);
    }

    @Override
    public GenericRow decode(byte[] payload, int offset, int length, GenericRow row) {
        try (JsonParser in = JSON.createParser(payload, offset, length)) {
            if (in.nextToken() == JsonToken.START_OBJECT && read(in, row)) {
                return row;
            }
        } catch (IOException | RuntimeException e) {
            // below
        }
        LOG.error("{}: skipped a record that is no flat JSON object: {}", topic, new String(payload, offset, length, StandardCharsets.UTF_8));
        row.clear();
        return null;
    }

    /** The record's fields into the row; false if one cannot be a column. */
    private boolean read(JsonParser in, GenericRow row) throws IOException {
        for (String name = in.nextFieldName(); name != null; name = in.nextFieldName()) {
            Field f = fields.get(name);
            JsonToken token = in.nextToken();
            if (f == null) {
                in.skipChildren();
            } else if (token == JsonToken.START_ARRAY) {
                if (!array(in, f, row)) {
                    return false;
                }
            } else if (token == JsonToken.START_OBJECT) {
                return false;
            } else {
                if (f.wanted) {
                    row.putValue(name, value(in, token));
                }
                elementsFrom(0, f, row);
            }
        }
        // null is the end of the object, and what is no field's name
        return in.currentToken() == JsonToken.END_OBJECT;
    }

    private boolean array(JsonParser in, Field f, GenericRow row) throws IOException {
        values.clear();
        int i = 0;
        for (JsonToken token = in.nextToken(); token != JsonToken.END_ARRAY; token = in.nextToken(), i++) {
            if (token == null || token.isStructStart()) {
                return false;
            }
            String column = i < f.elements.size() ? f.elements.get(i) : null;
            if (column == null && !f.wanted) {
                continue;
            }
            Object value = value(in, token);
            if (column != null) {
                row.putValue(column, value);
            }
            if (f.wanted && value != null) {
                values.add(value);
            }
        }
        elementsFrom(i, f, row);
        if (f.wanted) {
            // Pinot has no null within an array, and no empty array
            row.putValue(f.name, values.isEmpty() ? null : values.toArray());
        }
        return true;
    }

    /** The elements from this one on are not there: null, also if the record has the field twice. */
    private static void elementsFrom(int index, Field f, GenericRow row) {
        for (int i = index; i < f.elements.size(); i++) {
            if (f.elements.get(i) != null) {
                row.putValue(f.elements.get(i), null);
            }
        }
    }

    /** A text, a number or a boolean as Java has it; Pinot makes of it what the column is. */
    private static Object value(JsonParser in, JsonToken token) throws IOException {
        switch (token) {
            case VALUE_STRING:
                return in.getText();
            case VALUE_NUMBER_INT:
                return in.getNumberValue();
            case VALUE_NUMBER_FLOAT:
                return in.getDoubleValue();
            case VALUE_TRUE:
                return "true";
            case VALUE_FALSE:
                return "false";
            default:
                return null;
        }
    }
}
