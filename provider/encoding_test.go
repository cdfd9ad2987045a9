package provider

import (
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/internal/class"
)

func TestEncoding(t *testing.T) {
	for _, test := range []struct {
		e             class.Encoding
		in, want, err string
	}{
		{class.UTF8, " \xff\x00 ", " \xff\x00 ", ""},
		{"", "x\n", "x\n", ""},
		{class.Base64, "aGVs\nbG8=\n", "hello", ""},
		{class.Base64, "", "", ""},
		{class.Base64, canaryPlaintext, "", "not base64"},
		{class.Hex, " 68656C6c6f \n", "hello", ""},
		{class.Hex, "6", "", "not hex"},
		{class.Hex, canaryPlaintext, "", "not hex"},
	} {
		got, err := decode(test.e, []byte(test.in))
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s of %q: %q, %v", test.e, test.in, got, err)
				continue
			}
			clean(t, canaries, err.Error())
		} else if err != nil || string(got) != test.want {
			t.Errorf("%s of %q: %q, %v", test.e, test.in, got, err)
		}
	}
}
