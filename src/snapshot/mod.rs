//! Save, restore, delete, gc.
