package vaultsetup

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/secretmanager-io/secretmanager/transit"
)

// Texts returns a value of a [Role] or of a response of Vault as a list.
func Texts(v any) []string {
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

// ErrDenied is wrapped by the error of a request that the Vault token does not allow.
var ErrDenied error = deniedError{}

type deniedError struct{}

func (deniedError) Error() string {
	return "check that the Vault token is valid and may administer policies, roles and the transit engine"
}

func (deniedError) Unwrap() error { return transit.ErrDenied }

func write(ctx context.Context, v *api.Client, doing, path string, fields []field) error {
	body := map[string]any{}
	for _, f := range fields {
		body[f.name] = f.value
	}
	_, err := v.Logical().WriteWithContext(ctx, path, body)
	return explain(doing+" "+path, err)
}

// explain returns an error of the API client, which has several lines, as one line, with
// what to check after HTTP 403.
func explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, transit.ErrTimeout) {
		return fmt.Errorf("%s: %w", doing, errors.Unwrap(err))
	}
	if inner := (*url.Error)(nil); errors.As(err, &inner) {
		return fmt.Errorf("%s: %w: %w", doing, transit.ErrUnreachable, inner.Err)
	}
	response := (*api.ResponseError)(nil)
	if !errors.As(err, &response) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if response.RawError { // the body is not repeated: it may be a page of HTML
		return fmt.Errorf("%s: HTTP %d: %w", doing, response.StatusCode, transit.ErrNotVault)
	}
	message := strings.Join(strings.Fields(strings.Join(response.Errors, "; ")), " ")
	if response.StatusCode == http.StatusForbidden {
		return fmt.Errorf("%s: HTTP %d: %s (%w)", doing, response.StatusCode, message, ErrDenied)
	}
	return fmt.Errorf("%s: HTTP %d: %s", doing, response.StatusCode, message)
}
