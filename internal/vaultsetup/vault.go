package vaultsetup

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/vault/api"
)

// texts returns a value, as a role has it or as Vault answers it, as a list.
func texts(v any) []string {
	switch v := v.(type) {
	case nil:
		return nil
	case string:
		if v == "" {
			return nil
		}
		return []string{v}
	case []string:
		return v
	case []any:
		list := make([]string, 0, len(v))
		for _, x := range v {
			list = append(list, fmt.Sprint(x))
		}
		return list
	}
	return []string{fmt.Sprint(v)}
}

// ErrDenied is wrapped by errors about what the Vault token may not do.
var ErrDenied = errors.New("check that the Vault token is valid and may administer policies, roles and the " +
	"transit engine")

func write(ctx context.Context, v *api.Client, doing, path string, fields []field) error {
	body := map[string]any{}
	for _, f := range fields {
		body[f.name] = f.value
	}
	_, err := v.Logical().WriteWithContext(ctx, path, body)
	return explain(doing+" "+path, err)
}

// explain puts an error of the API client, which takes several lines, into one,
// and says what to check where the status tells.
func explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	if inner := (*url.Error)(nil); errors.As(err, &inner) {
		return fmt.Errorf("%s: Vault cannot be reached: %w", doing, inner.Err)
	}
	refused := (*api.ResponseError)(nil)
	if !errors.As(err, &refused) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	// A body that is not Vault's is not repeated: it may be a page of HTML.
	words := "an answer that is not one of Vault's"
	if !refused.RawError {
		words = strings.Join(strings.Fields(strings.Join(refused.Errors, "; ")), " ")
	}
	if refused.StatusCode == http.StatusForbidden {
		return fmt.Errorf("%s: HTTP %d: %s (%w)", doing, refused.StatusCode, words, ErrDenied)
	}
	return fmt.Errorf("%s: HTTP %d: %s", doing, refused.StatusCode, words)
}
