package monitoring

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// board is a Grafana dashboard with the fields that the tests check.
type board struct {
	UID           string `json:"uid"`
	Title         string `json:"title"`
	SchemaVersion int    `json:"schemaVersion"`
	Panels        []panel
	Templating    struct {
		List []struct{ Name, Type string }
	}
}

type panel struct {
	ID          int
	Type, Title string
	Description string
	Datasource  source
	FieldConfig struct {
		Defaults struct{ Unit string }
	}
	GridPos struct{ X, Y, W, H int }
	Targets []struct {
		RefID      string
		Expr       string
		Datasource source
	}
}

type source struct{ Type, UID string }

func dashboard(t *testing.T) (b board) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, dashboardFile)), &b); err != nil {
		t.Fatal(err)
	}
	return b
}

// panels returns the panels that show data.
func (b board) panels() []panel {
	return slices.DeleteFunc(slices.Clone(b.Panels), func(p panel) bool { return p.Type == "row" })
}

// TestDashboard: the dashboard can be imported into any Grafana, and again, and each panel has a description.
func TestDashboard(t *testing.T) {
	b := dashboard(t)
	if b.UID != "secretmanager" || b.Title != "SecretManager" || b.SchemaVersion == 0 {
		t.Errorf("uid %q, title %q, schema %d", b.UID, b.Title, b.SchemaVersion)
	}
	if !slices.Contains(b.Templating.List, struct{ Name, Type string }{"datasource", "datasource"}) {
		t.Error("the dashboard has no variable for the data source")
	}
	ids, titles := map[int]bool{}, map[string]bool{}
	want := source{"prometheus", "${datasource}"}
	for _, p := range b.Panels {
		if ids[p.ID] || p.Title == "" || titles[p.Title] {
			t.Errorf("panel %d, %q: the ID or the title is not unique, or the title is empty", p.ID, p.Title)
		}
		ids[p.ID], titles[p.Title] = true, true
		if p.GridPos.X+p.GridPos.W > 24 || p.GridPos.H == 0 {
			t.Errorf("%s is at %+v", p.Title, p.GridPos)
		}
		for _, q := range b.Panels {
			if q.ID != p.ID && p.GridPos.X < q.GridPos.X+q.GridPos.W && q.GridPos.X < p.GridPos.X+p.GridPos.W &&
				p.GridPos.Y < q.GridPos.Y+q.GridPos.H && q.GridPos.Y < p.GridPos.Y+p.GridPos.H {
				t.Errorf("%s overlaps %s", p.Title, q.Title)
			}
		}
	}
	for _, p := range b.panels() {
		unit := p.FieldConfig.Defaults.Unit
		if !strings.HasSuffix(p.Description, ".") || unit == "" || p.Datasource != want || len(p.Targets) == 0 {
			t.Errorf("%s: description %q, unit %q, %+v, %d queries", p.Title, p.Description, unit, p.Datasource, len(p.Targets))
		}
		refs := map[string]bool{}
		for _, q := range p.Targets {
			if refs[q.RefID] || q.RefID == "" || q.Datasource != want {
				t.Errorf("%s: query %q of %+v", p.Title, q.RefID, q.Datasource)
			}
			refs[q.RefID] = true
		}
	}
}
